// The INT8 kernels as packed functions. Included by exports.cc, whose argument checks it uses.
#pragma once

#include "attention_i8.h"
#include "experts_i8.h"
#include "head_i8.h"
#include "inverted_residual_i8.h"
#include "linear_i8.h"
#include "profile.h"

namespace edgemtl {
namespace {

const uint8_t* layer_i8(const TensorView& t, const char* name, int64_t size) {
  const bool plain = t.dtype().code == kDLUInt && t.dtype().bits == 8 && t.IsContiguous();
  if (!plain || t.numel() != size) {
    TVM_FFI_THROW(ValueError) << name << " must hold " << size << " contiguous uint8 values, not "
                              << t.numel() << " of " << t.dtype();
  }
  return static_cast<const uint8_t*>(t.data_ptr());
}

void run_linear_i8(const TensorView& x, const TensorView& w, const float* residual, const TensorView& out,
                   bool gelu) {
  const int depth = last(x), width = last(out);
  want(rows(x) == rows(out), "linear: x and out differ in rows");
  const Timed timed(gelu       ? "linear_gelu_i8"
                    : residual ? "linear_residual_i8"
                               : "linear_i8",
                    static_cast<int64_t>(rows(x)) * depth * width, bytes(w));
  linear_i8(f32(x, "x"), layer_i8(w, "linear weight", LayerI8::bytes(width, depth)), residual,
            f32(out, "out"), rows(x), depth, width, gelu);
}

void linear_i8_plain(TensorView x, TensorView w, TensorView out) { run_linear_i8(x, w, nullptr, out, false); }
void linear_i8_gelu(TensorView x, TensorView w, TensorView out) { run_linear_i8(x, w, nullptr, out, true); }
void linear_i8_residual(TensorView x, TensorView w, TensorView residual, TensorView out) {
  run_linear_i8(x, w, f32(residual, "residual", out.numel()), out, false);
}

void run_mlp_i8(TensorView x, TensorView first, TensorView second, TensorView residual, int64_t hidden,
                TensorView out) {
  const int dim = last(x), h = static_cast<int>(hidden);
  want(x.numel() == out.numel(), "mlp: x and out differ");
  const Timed timed("mlp_i8", static_cast<int64_t>(rows(x)) * dim * h * 2, bytes(first) + bytes(second));
  mlp_i8(f32(x, "x"), layer_i8(first, "first weight", LayerI8::bytes(h, dim)),
         layer_i8(second, "second weight", LayerI8::bytes(dim, h)), f32(residual, "residual", out.numel()),
         f32(out, "out"), rows(x), dim, h);
}

void run_patch_embed_i8(TensorView image, TensorView w, TensorView cls, TensorView pos, int64_t patch,
                        TensorView out) {
  want(image.ndim() == 4 && image.size(0) == 1 && image.size(1) == 3,
       "patch_embed: the image must be [1, 3, H, W]");
  const int height = static_cast<int>(image.size(2)), width = last(image), dim = last(out),
            p = static_cast<int>(patch);
  want(rows(out) == height / p * (width / p) + 1 && dim % kPanel == 0, "patch_embed: shapes do not fit");
  const Timed timed("patch_embed_i8", (rows(out) - 1) * static_cast<int64_t>(dim) * 3 * p * p,
                    bytes(w) + bytes(cls) + bytes(pos));
  patch_embed_i8(f32(image, "image"), layer_i8(w, "patch weight", LayerI8::bytes(dim, 3 * p * p)),
                 f32(cls, "class token", dim), f32(pos, "position embedding", out.numel()), f32(out, "out"),
                 height, width, p, dim);
}

void run_attention_i8(TensorView qkv, int64_t heads, TensorView out) {
  const int dim = last(out), h = static_cast<int>(heads);
  want(last(qkv) == 3 * dim && rows(qkv) == rows(out) && dim % (h * kPanel) == 0,
       "attention: shapes do not fit");
  const Timed timed("attention_i8", 2 * static_cast<int64_t>(rows(out)) * rows(out) * dim, 0);
  attention_i8(f32(qkv, "qkv"), f32(out, "out"), rows(out), h, dim / h);
}

void run_attention_linear_i8(TensorView qkv, int64_t heads, TensorView w, TensorView residual,
                             TensorView out) {
  const int n = rows(out), dim = last(out), h = static_cast<int>(heads);
  want(last(qkv) == 3 * dim && rows(qkv) == n && dim % (h * kPanel) == 0, "attention: shapes do not fit");
  const Timed timed("attention_linear_i8",
                    2 * static_cast<int64_t>(n) * n * dim + static_cast<int64_t>(n) * dim * dim, bytes(w));
  attention_linear_i8(f32(qkv, "qkv"), layer_i8(w, "linear weight", LayerI8::bytes(dim, dim)),
                      f32(residual, "residual", out.numel()), f32(out, "out"), n, h, dim / h);
}

void run_norm_linear_i8(TensorView x, TensorView affine, double eps, TensorView w, TensorView out) {
  const int depth = last(x), width = last(out);
  want(rows(x) == rows(out) && depth % kPanel == 0, "linear: x and out do not fit");
  const Timed timed("norm_linear_i8", static_cast<int64_t>(rows(x)) * depth * width,
                    bytes(affine) + bytes(w));
  norm_linear_i8(f32(x, "x"), f32(affine, "norm weight", 2 * depth), static_cast<float>(eps),
                 layer_i8(w, "linear weight", LayerI8::bytes(width, depth)), f32(out, "out"), rows(x), depth,
                 width);
}

void run_inverted_residual_i8(TensorView x, TensorView expand, TensorView taps, TensorView project,
                              Shape shape, int64_t shortcut, TensorView out) {
  const Inverted s = inverted_sizes(x, true, taps, shape, shortcut != 0, out);
  want(s.window.down * s.window.across <= kMostTaps, "inverted_residual: INT8 takes up to 128 taps");
  const Timed timed("inverted_residual_i8", s.macs, bytes(expand) + bytes(taps) + bytes(project));
  inverted_residual_i8(f32(x, "x"), layer_i8(expand, "expand weight", LayerI8::bytes(s.middle, s.inputs)),
                       f32(taps, "taps"),
                       layer_i8(project, "project weight", LayerI8::bytes(s.outputs, s.middle)),
                       f32(out, "out"), s.window, s.inputs, s.middle, s.outputs, shortcut != 0);
}

void run_separable_step_i8(TensorView x, TensorView taps, TensorView mix, Shape shape, TensorView out) {
  const Tiles map = tiles(shape);
  const int64_t size = static_cast<int64_t>(map.height()) * map.width() * map.dim;
  want(map.dim % kPanel == 0, "separable_step: channels must be a multiple of 16");
  const Timed timed("separable_step_i8", size * (9 + map.dim), bytes(taps) + bytes(mix));
  separable_step_i8(f32(x, "x", size), f32(taps, "taps", 10 * map.dim),
                    layer_i8(mix, "pointwise weight", LayerI8::bytes(map.dim, map.dim)),
                    f32(out, "out", size), map);
}

// Arguments: tokens, index, score, residual, hidden size, one packed expert after the other, out.
void run_experts_i8(const AnyView* args, int count) {
  want(count >= 7, "experts: too few arguments");
  auto tensor = [&](int i) { return args[i].cast<TensorView>(); };
  const TensorView x = tensor(0), index = tensor(1), out = tensor(count - 1);
  const int n = rows(x), dim = last(x), k = last(index), hidden = static_cast<int>(args[4].cast<int64_t>());
  const int64_t size = LayerI8::bytes(hidden, dim) + LayerI8::bytes(dim, hidden), page = 4096;
  std::vector<const uint8_t*> weights;
  for (int i = 5; i < count - 1; ++i)
    weights.push_back(layer_i8(tensor(i), "expert weight", (size + page - 1) / page * page));
  const int64_t pairs = static_cast<int64_t>(n) * k;
  const int64_t* choice = i64(index, "index", pairs);
  const int64_t read =
      g_profile.on.load() ? chosen_bytes(index, tensor(5), static_cast<int>(weights.size())) : 0;
  const Timed timed("experts_i8", pairs * 2 * dim * hidden, read);
  const bool good = experts_i8(f32(x, "x"), choice, f32(tensor(2), "score", pairs),
                               f32(tensor(3), "residual", x.numel()), f32(out, "out", x.numel()),
                               weights.data(), static_cast<int>(weights.size()), n, k, dim, hidden);
  want(good, "experts: a token chose an expert that does not exist");
}

}  // namespace
}  // namespace edgemtl

TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_attention_i8, edgemtl::run_attention_i8);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_attention_linear_i8, edgemtl::run_attention_linear_i8);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_norm_linear_i8, edgemtl::run_norm_linear_i8);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_inverted_residual_i8, edgemtl::run_inverted_residual_i8);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_separable_step_i8, edgemtl::run_separable_step_i8);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_linear_i8, edgemtl::linear_i8_plain);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_linear_gelu_i8, edgemtl::linear_i8_gelu);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_linear_residual_i8, edgemtl::linear_i8_residual);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_mlp_i8, edgemtl::run_mlp_i8);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(edgemtl_patch_embed_i8, edgemtl::run_patch_embed_i8);

extern "C" TVM_FFI_DLL_EXPORT int __tvm_ffi_edgemtl_experts_i8(void*, const TVMFFIAny* args, int32_t count,
                                                               TVMFFIAny*) {
  TVM_FFI_SAFE_CALL_BEGIN();
  edgemtl::run_experts_i8(reinterpret_cast<const tvm::ffi::AnyView*>(args), count);
  TVM_FFI_SAFE_CALL_END();
}
