// Calls kernels by name, for a test on another machine: requests come on standard input, results go to
// standard output.
//
// The kernels are the very object that programs are linked with, as a shared library given as argument. What
// it needs of TVM's function interface is small enough to be here, so that nothing of TVM for this machine
// has to be installed. tests/compiler/emulated.py is the other side and documents the messages.
#include <dlfcn.h>
#include <tvm/ffi/c_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace {

std::string raised;  // the message of the last error

// An object as TVM lays it out: the header, then its content.
template <class Content>
struct Object {
  TVMFFIObject header;
  Content content;
};

void keep(void*, int) {}  // objects made here are freed here

void get(void* to, size_t size) {
  if (std::fread(to, 1, size, stdin) != size) std::exit(std::feof(stdin) ? 0 : 3);
}

template <class T>
T get() {
  T value;
  get(&value, sizeof value);
  return value;
}

void put(const void* from, size_t size) {
  if (std::fwrite(from, 1, size, stdout) != size) std::exit(3);
}

struct Free {
  void operator()(void* p) const { std::free(p); }
};

// One argument and what it points to.
struct Argument {
  TVMFFIAny any = {};
  std::vector<int64_t> dims;
  std::unique_ptr<void, Free> data;
  size_t bytes = 0;
  DLTensor tensor = {};
  Object<TVMFFIShapeCell> shape = {};

  void read() {
    const char kind = get<char>();
    if (kind == 'i') {
      any.type_index = kTVMFFIInt;
      any.v_int64 = get<int64_t>();
    } else if (kind == 'f') {
      any.type_index = kTVMFFIFloat;
      any.v_float64 = get<double>();
    } else if (kind == 's') {
      read_dims();
      shape.header.combined_ref_count = (uint64_t{1} << 32) | 1;
      shape.header.type_index = kTVMFFIShape;
      shape.header.deleter = keep;
      shape.content = {dims.data(), dims.size()};
      any.type_index = kTVMFFIShape;
      any.v_obj = &shape.header;
    } else {
      const auto code = get<uint8_t>(), bits = get<uint8_t>();
      read_dims();
      bytes = bits / 8;
      for (int64_t n : dims) bytes *= static_cast<size_t>(n);
      data.reset(std::aligned_alloc(64, (bytes / 64 + 1) * 64));
      get(data.get(), bytes);
      tensor = {
          data.get(), {kDLCPU, 0}, static_cast<int32_t>(dims.size()), {code, bits, 1}, dims.data(), nullptr,
          0};
      any.type_index = kTVMFFIDLTensorPtr;
      any.v_ptr = &tensor;
    }
  }

  void read_dims() {
    dims.resize(get<uint32_t>());
    get(dims.data(), dims.size() * sizeof(int64_t));
  }
};

void serve(void* library) {
  std::string name(get<uint32_t>(), ' ');
  get(name.data(), name.size());
  std::vector<Argument> arguments(get<uint32_t>());
  std::vector<TVMFFIAny> views;
  for (Argument& argument : arguments) {
    argument.read();
    views.push_back(argument.any);
  }
  const auto function = reinterpret_cast<TVMFFISafeCallType>(dlsym(library, ("__tvm_ffi_" + name).c_str()));
  TVMFFIAny result = {};
  raised = "there is no such kernel";
  const bool failed =
      !function || function(nullptr, views.data(), static_cast<int32_t>(views.size()), &result) != 0;
  if (!failed) raised.clear();
  const auto size = static_cast<uint32_t>(raised.size());
  put(&size, sizeof size);
  put(raised.data(), raised.size());
  for (const Argument& argument : arguments) put(argument.data.get(), failed ? 0 : argument.bytes);
  std::fflush(stdout);
}

}  // namespace

extern "C" {

void TVMFFIErrorSetRaised(TVMFFIObjectHandle error) {
  const TVMFFIByteArray& message = static_cast<Object<TVMFFIErrorCell>*>(error)->content.message;
  raised.assign(message.data, message.size);
}

const TVMFFIByteArray* TVMFFIBacktrace(const char*, int, const char*, int) {
  static const TVMFFIByteArray none = {"", 0};
  return &none;
}

int TVMFFIDataTypeToString(const DLDataType* dtype, TVMFFIAny* out) {
  *out = {};
  out->type_index = kTVMFFISmallStr;
  out->small_str_len = static_cast<uint32_t>(
      std::snprintf(out->v_bytes, sizeof out->v_bytes, "%c%d", "iufo"[dtype->code & 3], dtype->bits));
  return 0;
}

// Types of TVM's that the kernels do not use announce themselves when the library is loaded.
int32_t TVMFFITypeGetOrAllocIndex(const TVMFFIByteArray*, int32_t, int32_t, int32_t, int32_t, int32_t) {
  static int32_t next = kTVMFFIDynObjectBegin;
  return next++;
}

// Only an error in this file can lead to these.
void TVMFFIErrorMoveFromRaised(TVMFFIObjectHandle*) { std::abort(); }
const TVMFFITypeInfo* TVMFFIGetTypeInfo(int32_t) { std::abort(); }

}  // extern "C"

int main(int, char** argv) {
  void* library = dlopen(argv[1], RTLD_NOW);
  if (!library) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 3;
  }
  for (;;) serve(library);
}
