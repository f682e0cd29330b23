// The kernels as packed functions of a TVM program: argument checks, and nothing else.
//
// Compiled once per target and linked into every program. Symbols are looked up in the program's own library,
// never in TVM's global registry, so programs built differently live side by side. The last argument of each
// is its output.
#include <tvm/ffi/tvm_ffi.h>

#include "attention.h"
#include "conv_head.h"
#include "convolution.h"
#include "experts.h"
#include "head.h"
#include "inverted_residual.h"
#include "linear.h"
#include "profile.h"

namespace edgemtl {
namespace {

using tvm::ffi::AnyView;
using tvm::ffi::Shape;
using tvm::ffi::TensorView;

float* f32(const TensorView& t, const char* name, int64_t size = -1) {
  const bool plain = t.dtype().code == kDLFloat && t.dtype().bits == 32 && t.IsContiguous();
  if (!plain || (size >= 0 && t.numel() != size)) {
    TVM_FFI_THROW(ValueError) << name << " must hold " << size << " contiguous float32 values, not "
                              << t.numel() << " of " << t.dtype();
  }
  return static_cast<float*>(t.data_ptr());
}

// A packed layer of `size` numbers, single or half precision, whichever the tensor has.
Packed packed(const TensorView& t, const char* name, int64_t size) {
  if (t.dtype().code != kDLFloat || t.dtype().bits != 16) return f32(t, name, size);
  // A bundle pads a layer of halves to a whole line of 64 bytes.
  if (!t.IsContiguous() || (t.numel() != size && t.numel() != (size + 31) / 32 * 32)) {
    TVM_FFI_THROW(ValueError) << name << " must hold " << size << " contiguous float16 values, not "
                              << t.numel();
  }
  return static_cast<const Half*>(t.data_ptr());
}

int64_t* i64(const TensorView& t, const char* name, int64_t size) {
  if (t.dtype().code != kDLInt || t.dtype().bits != 64 || !t.IsContiguous() || t.numel() != size) {
    TVM_FFI_THROW(ValueError) << name << " must hold " << size << " contiguous int64 values";
  }
  return static_cast<int64_t*>(t.data_ptr());
}

void want(bool good, const char* what) {
  if (!good) TVM_FFI_THROW(ValueError) << what;
}

int64_t bytes(const TensorView& t) { return t.numel() * t.dtype().bits / 8; }
int last(const TensorView& t) { return static_cast<int>(t.size(t.ndim() - 1)); }
int rows(const TensorView& t) { return static_cast<int>(t.numel() / t.size(t.ndim() - 1)); }

void run_linear(const TensorView& x, const TensorView& w, const float* residual, const TensorView& out,
                bool gelu) {
  const int depth = last(x), width = last(out);
  want(rows(x) == rows(out), "linear: x and out differ in rows");
  const Timed timed(gelu       ? "linear_gelu"
                    : residual ? "linear_residual"
                               : "linear",
                    static_cast<int64_t>(rows(x)) * depth * width, bytes(w));
  linear(f32(x, "x"), packed(w, "linear weight", linear_size(width, depth)), residual, f32(out, "out"),
         rows(x), depth, width, gelu);
}

void linear_plain(TensorView x, TensorView w, TensorView out) { run_linear(x, w, nullptr, out, false); }
void linear_gelu(TensorView x, TensorView w, TensorView out) { run_linear(x, w, nullptr, out, true); }
void linear_residual(TensorView x, TensorView w, TensorView residual, TensorView out) {
  run_linear(x, w, f32(residual, "residual", out.numel()), out, false);
}

// x may have more rows than out: then the first ones are left out.
void run_layernorm(TensorView x, TensorView w, double eps, TensorView out) {
  const int dim = last(x), skip = rows(x) - rows(out);
  want(last(out) == dim && skip >= 0 && dim % kPanel == 0, "layernorm: shapes do not fit");
  const Timed timed("layernorm", 0, bytes(w));
  layernorm(f32(x, "x") + static_cast<ptrdiff_t>(skip) * dim, f32(w, "norm weight", 2 * dim), f32(out, "out"),
            rows(out), dim, static_cast<float>(eps));
}

void run_patch_embed(TensorView image, TensorView w, TensorView cls, TensorView pos, int64_t patch,
                     TensorView out) {
  want(image.ndim() == 4 && image.size(0) == 1 && image.size(1) == 3,
       "patch_embed: the image must be [1, 3, H, W]");
  const int height = static_cast<int>(image.size(2)), width = last(image), dim = last(out),
            p = static_cast<int>(patch);
  want(rows(out) == height / p * (width / p) + 1 && dim % kPanel == 0, "patch_embed: shapes do not fit");
  const Timed timed("patch_embed", (rows(out) - 1) * static_cast<int64_t>(dim) * 3 * p * p,
                    bytes(w) + bytes(cls) + bytes(pos));
  patch_embed(f32(image, "image"), packed(w, "patch weight", linear_size(dim, 3 * p * p)),
              f32(cls, "class token", dim), f32(pos, "position embedding", out.numel()), f32(out, "out"),
              height, width, p, dim);
}

void run_attention(TensorView qkv, int64_t heads, TensorView out) {
  const int dim = last(out), h = static_cast<int>(heads);
  want(last(qkv) == 3 * dim && rows(qkv) == rows(out) && dim % (h * kPanel) == 0,
       "attention: shapes do not fit");
  const Timed timed("attention", 2 * static_cast<int64_t>(rows(out)) * rows(out) * dim, 0);
  attention(f32(qkv, "qkv"), f32(out, "out"), rows(out), h, dim / h);
}

// Where the calling thread's next routings are copied besides, for maps of the experts; usually nowhere.
thread_local int64_t *tap = nullptr, *tap_end = nullptr;

// int64 [..]: room for one routing [n, k] after the other; an empty one ends it. Returns how much was free.
int64_t run_tap_routing(TensorView room) {
  const int64_t left = tap_end - tap;
  tap = i64(room, "room for routings", room.numel());
  tap_end = tap + room.numel();
  return left;
}

// columns: experts in the gate's matrix; path: those of them that count.
void run_route(TensorView x, TensorView gate, int64_t columns, Shape path, int64_t renormalise,
               TensorView index, TensorView score) {
  const int n = rows(x), dim = last(x), k = last(index), paths = static_cast<int>(path.size());
  want(k <= paths, "route: more experts per token than the path has");
  for (int64_t e : path) want(e >= 0 && e < columns, "route: the path names an expert that the gate lacks");
  const Timed timed("route", static_cast<int64_t>(n) * dim * paths, bytes(gate));
  route(f32(x, "x"), f32(gate, "gate", linear_size(static_cast<int>(columns), dim)), path.data(), paths,
        static_cast<int>(columns), i64(index, "index", static_cast<int64_t>(n) * k),
        f32(score, "score", static_cast<int64_t>(n) * k), n, dim, k, renormalise != 0);
  if (tap_end - tap >= index.numel())
    tap = std::copy_n(i64(index, "index", index.numel()), index.numel(), tap);
}

// Bytes of one packed expert, times the experts that some token chose.
int64_t chosen_bytes(const TensorView& index, const TensorView& expert, int count) {
  std::vector<bool> chosen(count);
  for (int64_t i = 0; i < index.numel(); ++i) {
    const int64_t e = static_cast<const int64_t*>(index.data_ptr())[i];
    if (e >= 0 && e < count) chosen[e] = true;
  }
  return bytes(expert) * std::count(chosen.begin(), chosen.end(), true);
}

// Arguments: tokens, index, score, residual, hidden size, one packed expert after the other, out.
void run_experts(const AnyView* args, int count) {
  want(count >= 7, "experts: too few arguments");
  auto tensor = [&](int i) { return args[i].cast<TensorView>(); };
  const TensorView x = tensor(0), index = tensor(1), out = tensor(count - 1);
  const int n = rows(x), dim = last(x), k = last(index), hidden = static_cast<int>(args[4].cast<int64_t>());
  const int64_t size = linear_size(hidden, dim) + linear_size(dim, hidden);
  std::vector<Packed> weights;
  for (int i = 5; i < count - 1; ++i) {
    const TensorView t = tensor(i);
    const int64_t page =
        t.dtype().bits == 16 ? 2048 : 1024;  // numbers of a page of memory, which pad an expert
    weights.push_back(packed(t, "expert weight", (size + page - 1) / page * page));
    want(weights.back().half == weights[0].half, "experts: their weights differ in precision");
  }
  const int64_t* choice = i64(index, "index", static_cast<int64_t>(n) * k);
  const int held = static_cast<int>(weights.size());
  const int64_t read = g_profile.on.load() ? chosen_bytes(index, tensor(5), held) : 0;
  const Timed timed("experts", static_cast<int64_t>(n) * k * 2 * dim * hidden, read);
  const bool good = experts(f32(x, "x"), choice, f32(tensor(2), "score", static_cast<int64_t>(n) * k),
                            f32(tensor(3), "residual", x.numel()), f32(out, "out", x.numel()), weights.data(),
                            held, n, k, dim, hidden);
  want(good, "experts: a token chose an expert that does not exist");
}

Tiles tiles(const Shape& s) {
  want(s.size() == 4, "tiles are given as rows, cols, tile, channels");
  return {static_cast<int>(s[0]), static_cast<int>(s[1]), static_cast<int>(s[2]), static_cast<int>(s[3])};
}

void run_separable_step(TensorView x, TensorView taps, TensorView mix, Shape shape, TensorView out) {
  const Tiles map = tiles(shape);
  const int64_t size = static_cast<int64_t>(map.height()) * map.width() * map.dim;
  want(map.dim % kPanel == 0, "separable_step: channels must be a multiple of 16");
  const Timed timed("separable_step", size * (9 + map.dim), bytes(taps) + bytes(mix));
  separable_step(f32(x, "x", size), f32(taps, "taps", 10 * map.dim),
                 packed(mix, "pointwise weight", linear_size(map.dim, map.dim)), f32(out, "out", size), map);
}

void run_to_map(TensorView x, TensorView w, Shape shape, TensorView out) {
  const Tiles map = tiles(shape);
  const int64_t pixels = static_cast<int64_t>(map.height()) * map.width();
  const int channels = static_cast<int>(out.numel() / pixels);
  const Timed timed("to_map", pixels * map.dim * channels, bytes(w));
  to_map(f32(x, "x", pixels * map.dim), packed(w, "map weight", linear_size(channels, map.dim)),
         f32(out, "out", pixels * channels), channels, map);
}

// shape: height and width of out, whose rows are its pixels; twice: x is half as high and wide, and doubled.
void run_conv_relu(TensorView x, TensorView w, Shape shape, int64_t twice, TensorView out) {
  want(shape.size() == 2, "conv_relu: a map is given as height, width");
  const int height = static_cast<int>(shape[0]), width = static_cast<int>(shape[1]), channels = last(out);
  const int64_t pixels = static_cast<int64_t>(height) * width, given = twice ? pixels / 4 : pixels;
  want(!twice || (height % 2 == 0 && width % 2 == 0), "conv_relu: a doubled map has even sides");
  want(out.numel() == pixels * channels && x.numel() % given == 0, "conv_relu: shapes do not fit");
  const int dim = static_cast<int>(x.numel() / given);
  want(dim % kPanel == 0, "conv_relu: channels must be a multiple of 16");
  const Timed timed("conv_relu", pixels * 9 * dim * channels, bytes(w));
  conv_relu(f32(x, "x"), packed(w, "convolution's weight", linear_size(channels, 9 * dim)), f32(out, "out"),
            height, width, dim, channels, twice != 0);
}

// height and width of the map, the kernel's rows and columns, its steps, zeros above and left, and out's
// size.
Window window(const Shape& s) {
  want(s.size() == 10, "a window is given as ten numbers");
  for (int64_t n : s) want(n >= 0 && n < (1 << 24), "a window's numbers are sizes");
  auto at = [&](int i) { return static_cast<int>(s[i]); };
  const Window w = {at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9)};
  want(w.down > 0 && w.down <= kMostDown && w.across > 0 && w.step_down > 0 && w.step_across > 0 &&
           w.height > 0 && w.width > 0 && w.out_height > 0 && w.out_width > 0,
       "a window has a size, a kernel of up to 16 rows, and steps");
  return w;
}

Epilogue activation(int64_t number) {
  want(number >= 0 && number < 4, "convolution: there is no such activation");
  constexpr Epilogue kAll[] = {Epilogue::kNone, Epilogue::kRelu, Epilogue::kRelu6, Epilogue::kGelu};
  return kAll[number];
}

// planes: x is a picture [channels, height, width]. activation: 0 none, 1 ReLU, 2 ReLU6, 3 GELU.
void run_convolution(TensorView x, TensorView w, Shape shape, int64_t planes, int64_t which, TensorView out) {
  const Window v = window(shape);
  const int64_t pixels = static_cast<int64_t>(v.height) * v.width,
                made = static_cast<int64_t>(v.out_height) * v.out_width;
  want(x.numel() % pixels == 0 && out.numel() % made == 0, "convolution: shapes do not fit");
  const int dim = static_cast<int>(x.numel() / pixels), channels = static_cast<int>(out.numel() / made);
  const int depth = v.down * v.across * dim;
  const Timed timed("convolution", made * depth * channels, bytes(w));
  convolution({f32(x, "x"), v.height, v.width, dim, planes != 0},
              packed(w, "convolution's weight", linear_size(channels, depth)), nullptr, f32(out, "out"), v,
              channels, activation(which));
}

void run_doubled_sum(TensorView x, TensorView finer, Shape shape, TensorView out) {
  want(shape.size() == 2 && shape[0] % 2 == 0 && shape[1] % 2 == 0, "doubled_sum: a map has two even sides");
  const int64_t pixels = static_cast<int64_t>(shape[0]) * shape[1];
  want(pixels > 0 && out.numel() % pixels == 0, "doubled_sum: shapes do not fit");
  const int dim = static_cast<int>(out.numel() / pixels);
  want(dim % kPanel == 0, "doubled_sum: channels must be a multiple of 16");
  const Timed timed("doubled_sum", 0, 0);
  doubled_sum(f32(x, "x", out.numel() / 4), f32(finer, "finer", out.numel()), f32(out, "out"),
              static_cast<int>(shape[0]), static_cast<int>(shape[1]), dim);
}

// What the shapes of an inverted residual's arguments say.
struct Inverted {
  Window window;
  int inputs, middle, outputs;
  int64_t macs;
};

Inverted inverted_sizes(const TensorView& x, bool expand, const TensorView& taps, const Shape& shape,
                        bool shortcut, const TensorView& out) {
  const Window v = window(shape);
  const int64_t pixels = static_cast<int64_t>(v.height) * v.width,
                made = static_cast<int64_t>(v.out_height) * v.out_width;
  const int64_t seen = static_cast<int64_t>(v.down) * v.across;
  want(x.numel() % pixels == 0 && out.numel() % made == 0 && taps.numel() % (seen + 1) == 0,
       "inverted_residual: shapes do not fit");
  const int inputs = static_cast<int>(x.numel() / pixels), outputs = static_cast<int>(out.numel() / made);
  const int middle = static_cast<int>(taps.numel() / (seen + 1));
  want(middle % kPanel == 0 && (expand || middle == inputs),
       "inverted_residual: channels must be a multiple of 16");
  want(!shortcut || x.numel() == out.numel(),
       "inverted_residual: only an output of the input's shape has a shortcut");
  const int64_t macs = made * middle * (seen + outputs) + (expand ? pixels * inputs * middle : 0);
  return {v, inputs, middle, outputs, macs};
}

void inverted(const TensorView& x, const TensorView* expand, const TensorView& taps,
              const TensorView& project, const Shape& shape, bool shortcut, const TensorView& out) {
  const Inverted s = inverted_sizes(x, expand != nullptr, taps, shape, shortcut, out);
  const Timed timed("inverted_residual", s.macs,
                    (expand ? bytes(*expand) : 0) + bytes(taps) + bytes(project));
  inverted_residual(f32(x, "x"),
                    expand ? packed(*expand, "expand weight", linear_size(s.middle, s.inputs)) : Packed(),
                    f32(taps, "taps"), packed(project, "project weight", linear_size(s.outputs, s.middle)),
                    f32(out, "out"), s.window, s.inputs, s.middle, s.outputs, shortcut);
}

void run_inverted_residual(TensorView x, TensorView expand, TensorView taps, TensorView project, Shape shape,
                           int64_t shortcut, TensorView out) {
  inverted(x, &expand, taps, project, shape, shortcut != 0, out);
}

// Without a first step: the inputs are what the taps read.
void run_separable_block(TensorView x, TensorView taps, TensorView project, Shape shape, int64_t shortcut,
                         TensorView out) {
  inverted(x, nullptr, taps, project, shape, shortcut != 0, out);
}

// Forgets the calls that were recorded; records from now on, or does not.
void run_profile(int64_t on) {
  g_profile.on.store(on != 0);
  g_profile.count = 0;
}

// Recorded calls, one line each: kernel, multiply-accumulates, bytes of weights, nanoseconds.
tvm::ffi::String run_profile_read() {
  std::string out;
  for (int i = 0; i < std::min(g_profile.count, Profile::kRoom); ++i) {
    const Call& c = g_profile.calls[i];
    out += std::string(c.kernel) + ' ' + std::to_string(c.macs) + ' ' + std::to_string(c.bytes) + ' ' +
           std::to_string(c.nanoseconds) + '\n';
  }
  return out;
}

void run_set_threads(int64_t n) { set_threads(static_cast<int>(std::clamp<int64_t>(n, 1, kMaxThreads))); }

}  // namespace
}  // namespace edgemtl

#include "exports_i8.h"

TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_linear, edgemtl::linear_plain);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_linear_gelu, edgemtl::linear_gelu);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_linear_residual, edgemtl::linear_residual);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_layernorm, edgemtl::run_layernorm);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_patch_embed, edgemtl::run_patch_embed);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_attention, edgemtl::run_attention);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_route, edgemtl::run_route);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_conv_relu, edgemtl::run_conv_relu);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_convolution, edgemtl::run_convolution);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_doubled_sum, edgemtl::run_doubled_sum);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_inverted_residual, edgemtl::run_inverted_residual);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_separable_block, edgemtl::run_separable_block);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_separable_step, edgemtl::run_separable_step);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_to_map, edgemtl::run_to_map);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_profile, edgemtl::run_profile);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_profile_read, edgemtl::run_profile_read);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_set_threads, edgemtl::run_set_threads);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_tap_routing, edgemtl::run_tap_routing);

// Takes any number of experts, which the typed macro cannot express.
extern "C" TVM_FFI_DLL_EXPORT int __tvm_ffi_edgemtl_experts(void*, const TVMFFIAny* args, int32_t count,
                                                            TVMFFIAny*) {
  TVM_FFI_SAFE_CALL_BEGIN();
  edgemtl::run_experts(reinterpret_cast<const tvm::ffi::AnyView*>(args), count);
  TVM_FFI_SAFE_CALL_END();
}
