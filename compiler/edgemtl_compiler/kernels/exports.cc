// The kernels as packed functions of a TVM program: argument checks, and nothing else.
//
// Compiled once per target and linked into every program. Symbols are looked up in the program's own library,
// never in TVM's global registry, so programs built differently live side by side. The last argument of each
// is its output.
#include <tvm/ffi/tvm_ffi.h>

#include "attention.h"
#include "experts.h"
#include "head.h"
#include "linear.h"

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

int64_t* i64(const TensorView& t, const char* name, int64_t size) {
  if (t.dtype().code != kDLInt || t.dtype().bits != 64 || !t.IsContiguous() || t.numel() != size) {
    TVM_FFI_THROW(ValueError) << name << " must hold " << size << " contiguous int64 values";
  }
  return static_cast<int64_t*>(t.data_ptr());
}

void want(bool good, const char* what) {
  if (!good) TVM_FFI_THROW(ValueError) << what;
}

int last(const TensorView& t) { return static_cast<int>(t.size(t.ndim() - 1)); }
int rows(const TensorView& t) { return static_cast<int>(t.numel() / t.size(t.ndim() - 1)); }

void run_linear(const TensorView& x, const TensorView& w, const float* residual, const TensorView& out,
                bool gelu) {
  const int depth = last(x), width = last(out);
  want(rows(x) == rows(out), "linear: x and out differ in rows");
  linear(f32(x, "x"), f32(w, "linear weight", linear_size(width, depth)), residual, f32(out, "out"), rows(x),
         depth, width, gelu);
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
  patch_embed(f32(image, "image"), f32(w, "patch weight", linear_size(dim, 3 * p * p)),
              f32(cls, "class token", dim), f32(pos, "position embedding", out.numel()), f32(out, "out"),
              height, width, p, dim);
}

void run_attention(TensorView qkv, int64_t heads, TensorView out) {
  const int dim = last(out), h = static_cast<int>(heads);
  want(last(qkv) == 3 * dim && rows(qkv) == rows(out) && dim % (h * kPanel) == 0,
       "attention: shapes do not fit");
  attention(f32(qkv, "qkv"), f32(out, "out"), rows(out), h, dim / h);
}

// columns: experts in the gate's matrix; path: those of them that count.
void run_route(TensorView x, TensorView gate, int64_t columns, Shape path, int64_t renormalise,
               TensorView index, TensorView score) {
  const int n = rows(x), dim = last(x), k = last(index), paths = static_cast<int>(path.size());
  want(k <= paths, "route: more experts per token than the path has");
  for (int64_t e : path) want(e >= 0 && e < columns, "route: the path names an expert that the gate lacks");
  route(f32(x, "x"), f32(gate, "gate", linear_size(static_cast<int>(columns), dim)), path.data(), paths,
        static_cast<int>(columns), i64(index, "index", static_cast<int64_t>(n) * k),
        f32(score, "score", static_cast<int64_t>(n) * k), n, dim, k, renormalise != 0);
}

// Arguments: tokens, index, score, residual, hidden size, one packed expert after the other, out.
void run_experts(const AnyView* args, int count) {
  want(count >= 7, "experts: too few arguments");
  auto tensor = [&](int i) { return args[i].cast<TensorView>(); };
  const TensorView x = tensor(0), index = tensor(1), out = tensor(count - 1);
  const int n = rows(x), dim = last(x), k = last(index), hidden = static_cast<int>(args[4].cast<int64_t>());
  const int64_t packed = linear_size(hidden, dim) + linear_size(dim, hidden), page = 1024;
  std::vector<const float*> weights;
  for (int i = 5; i < count - 1; ++i)
    weights.push_back(f32(tensor(i), "expert weight", (packed + page - 1) / page * page));
  const bool good = experts(f32(x, "x"), i64(index, "index", static_cast<int64_t>(n) * k),
                            f32(tensor(2), "score", static_cast<int64_t>(n) * k),
                            f32(tensor(3), "residual", x.numel()), f32(out, "out", x.numel()), weights.data(),
                            static_cast<int>(weights.size()), n, k, dim, hidden);
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
  separable_step(f32(x, "x", size), f32(taps, "depthwise weight", 10 * map.dim),
                 f32(mix, "pointwise weight", linear_size(map.dim, map.dim)), f32(out, "out", size), map);
}

void run_to_map(TensorView x, TensorView w, Shape shape, TensorView out) {
  const Tiles map = tiles(shape);
  const int64_t pixels = static_cast<int64_t>(map.height()) * map.width();
  const int channels = static_cast<int>(out.numel() / pixels);
  to_map(f32(x, "x", pixels * map.dim), f32(w, "map weight", linear_size(channels, map.dim)),
         f32(out, "out", pixels * channels), channels, map);
}

void run_set_threads(int64_t n) { set_threads(static_cast<int>(std::clamp<int64_t>(n, 1, kMaxThreads))); }

}  // namespace
}  // namespace edgemtl

TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_linear, edgemtl::linear_plain);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_linear_gelu, edgemtl::linear_gelu);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_linear_residual, edgemtl::linear_residual);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_layernorm, edgemtl::run_layernorm);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_patch_embed, edgemtl::run_patch_embed);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_attention, edgemtl::run_attention);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_route, edgemtl::run_route);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_separable_step, edgemtl::run_separable_step);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_to_map, edgemtl::run_to_map);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_set_threads, edgemtl::run_set_threads);

// Takes any number of experts, which the typed macro cannot express.
extern "C" TVM_FFI_DLL_EXPORT int __tvm_ffi_edgemtl_experts(void*, const TVMFFIAny* args, int32_t count,
                                                            TVMFFIAny*) {
  TVM_FFI_SAFE_CALL_BEGIN();
  edgemtl::run_experts(reinterpret_cast<const tvm::ffi::AnyView*>(args), count);
  TVM_FFI_SAFE_CALL_END();
}
