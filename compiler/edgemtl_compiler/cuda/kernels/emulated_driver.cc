// The part of the CUDA driver's interface (libcuda.so.1) that edgemtl uses, over the emulated device: device
// memory is the host's, a launch runs the kernel of kernels.cu by its name, a captured graph is a list of
// what to do again. Made for edgemtl/runtime/cuda/driver.py to call in place of the real one.
//
// It is strict where a GPU is silent: memory begins as not-a-number, has guard zones, and is counted; a copy
// to memory that was never given out, a stream, event or graph used wrongly are errors.
#include <algorithm>
#include <array>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "emulated.h"
#include "emulated_streams.h"
//
#include "kernels.cu"

using emulated::Event, emulated::Graph, emulated::kInvalid, emulated::Stream, emulated::submit;

namespace {

constexpr size_t kGuard = 256;
constexpr int kNoMemory = 2, kNotFound = 500, kLaunchFailed = 719;

struct Launcher {
  const char* name;
  std::function<void()> (*bind)(void** args);
};

template <auto kKernel>
struct Bound;
template <class... A, void (*kKernel)(A...)>
struct Bound<kKernel> {
  template <size_t... I>
  static std::function<void()> with(void** args, std::index_sequence<I...>) {
    return [values = std::make_tuple(*static_cast<std::remove_cv_t<A>*>(args[I])...)] {
      std::apply(kKernel, values);
    };
  }
  static std::function<void()> bind(void** args) { return with(args, std::index_sequence_for<A...>{}); }
};

#define ENTRY(name) {#name, Bound<&::name>::bind}
const Launcher kKernels[] = {ENTRY(patch_embed),
                             ENTRY(norm_linear),
                             ENTRY(norm_linear_gelu),
                             ENTRY(head_project),
                             ENTRY(linear_residual),
                             ENTRY(attention),
                             ENTRY(route),
                             ENTRY(dispatch),
                             ENTRY(expert_up),
                             ENTRY(expert_down),
                             ENTRY(combine),
                             ENTRY(separable_step),
                             ENTRY(normalise_patches),
                             ENTRY(conv_relu),
                             ENTRY(double_map),
                             ENTRY(to_map),
                             ENTRY(prepare)};

std::map<const void*, size_t> g_pinned;
std::map<uint64_t, std::unique_ptr<std::vector<unsigned char>>> g_memory;  // by address
size_t g_bytes = 0, g_limit = size_t{8} << 30;
std::map<std::string, int> g_launches;
std::string g_error;
thread_local std::vector<void*> t_contexts;  // the calling thread's, the current one last

// Whether [address, address + bytes) is device memory that was given out.
bool given(uint64_t address, size_t bytes) {
  auto it = g_memory.upper_bound(address);
  if (it == g_memory.begin()) return false;
  --it;
  return address + bytes <= it->first + it->second->size() - 2 * kGuard;
}

bool guarded(const std::vector<unsigned char>& memory) {
  auto whole = [](const unsigned char* p) {
    return std::all_of(p, p + kGuard, [](unsigned char c) { return c == 0xff; });
  };
  return whole(memory.data()) && whole(memory.data() + memory.size() - kGuard);
}

}  // namespace

extern "C" {

int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* version) {
  *version = 13000;
  return 0;
}
int cuDeviceGetCount(int* count) {
  *count = 1;
  return 0;
}
int cuDeviceGet(int* device, int number) {
  *device = number;
  return number ? kInvalid : 0;
}
int cuDeviceGetName(char* name, int room, int) {
  strncpy(name, "emulated on a CPU", static_cast<size_t>(room));
  return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 97 ? 101376 : 0;
  return 0;
}
int cuDevicePrimaryCtxRetain(void** context, int) {
  static int one;
  *context = &one;
  return 0;
}
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuCtxGetCurrent(void** context) {
  *context = t_contexts.empty() ? nullptr : t_contexts.back();
  return 0;
}
int cuCtxSetCurrent(void* context) {
  if (!t_contexts.empty()) t_contexts.pop_back();
  if (context) t_contexts.push_back(context);
  return 0;
}
int cuCtxPushCurrent_v2(void* context) {
  t_contexts.push_back(context);
  return 0;
}
int cuCtxPopCurrent_v2(void** context) {
  if (t_contexts.empty()) return kInvalid;
  *context = t_contexts.back();
  t_contexts.pop_back();
  return 0;
}
int cuGetErrorString(int code, const char** text) {
  *text = code == kLaunchFailed && !g_error.empty() ? g_error.c_str()
          : code == kNoMemory                       ? "out of memory"
                                                    : "invalid argument";
  return 0;
}
int cuModuleLoadData(void** module, const void*) {
  static int one;
  *module = &one;
  return 0;
}
int cuModuleUnload(void*) { return 0; }
int cuModuleGetFunction(void** function, void*, const char* name) {
  for (const Launcher& k : kKernels)
    if (!strcmp(k.name, name)) {
      *function = const_cast<Launcher*>(&k);
      return 0;
    }
  return kNotFound;
}
int cuFuncSetAttribute(void*, int, int) { return 0; }
int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
  if (!bytes) return kInvalid;
  if (g_bytes + bytes > g_limit) return kNoMemory;
  auto memory = std::make_unique<std::vector<unsigned char>>(bytes + 2 * kGuard, 0xff);
  *address = reinterpret_cast<uint64_t>(memory->data()) + kGuard;
  g_bytes += bytes;
  g_memory[*address] = std::move(memory);
  return 0;
}
int cuMemFree_v2(uint64_t address) {
  auto it = g_memory.find(address);
  if (it == g_memory.end()) return kInvalid;
  if (const int code = emulated::catch_up_with_all()) return code;  // as the real one waits for the device
  const bool good = guarded(*it->second);
  g_bytes -= it->second->size() - 2 * kGuard;
  g_memory.erase(it);
  if (!good) g_error = "a kernel wrote beyond its memory";
  return good ? 0 : kLaunchFailed;
}
int cuMemHostAlloc(void** to, size_t bytes, unsigned) {
  *to = calloc(1, bytes);
  g_pinned[*to] = bytes;
  return *to ? 0 : kNoMemory;
}
int cuMemFreeHost(void* p) {
  const int code = g_pinned.erase(p) ? emulated::catch_up_with_all() : kInvalid;
  if (code != kInvalid) free(p);
  return code;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
  const auto* source = static_cast<const unsigned char*>(from);
  auto after = g_pinned.upper_bound(from);
  const bool pinned =
      after != g_pinned.begin() &&
      source < static_cast<const unsigned char*>(std::prev(after)->first) + std::prev(after)->second;
  std::vector<unsigned char> kept;  // memory that is not pinned is the caller's again when this returns
  if (!pinned) kept.assign(source, source + bytes);
  return submit(stream, [=, kept = std::move(kept)] {
    if (!given(to, bytes)) return kInvalid;
    memcpy(reinterpret_cast<void*>(to), pinned ? source : kept.data(), bytes);
    return 0;
  });
}
int cuMemcpyDtoH_v2(void* to, uint64_t from, size_t bytes) {
  if (!given(from, bytes)) return kInvalid;
  memcpy(to, reinterpret_cast<const void*>(from), bytes);
  return 0;
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
  return submit(stream, [=] {
    if (!given(from, bytes)) return kInvalid;
    memcpy(to, reinterpret_cast<const void*>(from), bytes);
    return 0;
  });
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* stream) {
  return submit(stream, [=] {
    if (!given(to, bytes) || !given(from, bytes)) return kInvalid;
    memcpy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
    return 0;
  });
}
int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned,
                   unsigned shared_bytes, void* stream, void** args, void**) {
  const auto* kernel = static_cast<const Launcher*>(function);
  auto work = kernel->bind(args);
  return submit(stream, [=] {
    ++g_launches[kernel->name];
    const char* wrong = emulated::launch(work, {x, y, z}, static_cast<int>(threads), shared_bytes);
    if (!wrong) return 0;
    g_error = std::string(kernel->name) + ": " + wrong;
    return kLaunchFailed;
  });
}
int cuStreamCreate(void** stream, unsigned) {
  auto* made = new Stream;
  emulated::g_streams.insert(made);
  *stream = made;
  return 0;
}
int cuStreamDestroy_v2(void* handle) {
  Stream* stream = emulated::stream_of(handle);
  if (!stream) return kInvalid;
  const int code = emulated::catch_up_with(stream);
  emulated::g_streams.erase(stream);
  delete stream;
  return code;
}
int cuCtxSynchronize() { return emulated::catch_up_with_all(); }
int cuStreamSynchronize(void* handle) {
  Stream* stream = emulated::stream_of(handle);
  return !stream || stream->capturing ? kInvalid : emulated::catch_up_with(stream);
}
int cuStreamWaitEvent(void* handle, void* event, unsigned) {
  return submit(handle, [moment = *static_cast<Event*>(event)] { return emulated::catch_up(moment); });
}
int cuStreamBeginCapture_v2(void* handle, int) {
  Stream* stream = emulated::stream_of(handle);
  if (!stream || stream->capturing) return kInvalid;
  stream->capturing = std::make_unique<Graph>();
  return 0;
}
int cuStreamEndCapture(void* handle, void** graph) {
  Stream* stream = emulated::stream_of(handle);
  *graph = stream ? stream->capturing.release() : nullptr;
  return *graph ? 0 : kInvalid;
}
int cuGraphInstantiateWithFlags(void** made, void* graph, uint64_t) {
  *made = new Graph(*static_cast<Graph*>(graph));
  return 0;
}
int cuGraphLaunch(void* graph, void* handle) {
  Stream* stream = emulated::stream_of(handle);
  if (!stream || stream->capturing) return kInvalid;
  for (const emulated::Step& step : static_cast<Graph*>(graph)->steps) submit(handle, step);
  return 0;
}
int cuGraphDestroy(void* graph) {
  delete static_cast<Graph*>(graph);
  return 0;
}
int cuGraphExecDestroy(void* graph) {
  delete static_cast<Graph*>(graph);
  return 0;
}
int cuEventCreate(void** event, unsigned) {
  *event = new Event;
  return 0;
}
int cuEventDestroy_v2(void* event) {
  delete static_cast<Event*>(event);
  return 0;
}
int cuEventRecordWithFlags(void* event, void* stream, unsigned flags) {
  return emulated::record(static_cast<Event*>(event), stream, flags == 1);
}
int cuEventSynchronize(void* event) { return emulated::catch_up(*static_cast<Event*>(event)); }
int cuEventElapsedTime(float* milliseconds, void* begin, void* end) {
  for (const void* event : {begin, end}) {
    if (!static_cast<const Event*>(event)->stream) return kInvalid;  // it was never recorded
    if (!emulated::has_come(*static_cast<const Event*>(event))) return emulated::kNotReady;
  }
  *milliseconds = 0.001f;  // time means nothing here, but must not be zero
  return 0;
}

// For tests: bytes given out, a limit of them, launches of a kernel since the start, the order of threads.
size_t emulated_bytes() { return g_bytes; }
void emulated_limit(size_t bytes) { g_limit = bytes; }
int emulated_launches(const char* name) { return g_launches[name]; }
void emulated_order(int order, uint64_t seed) {
  emulated::set_order(static_cast<emulated::Order>(order), seed);
}

}  // extern "C"
