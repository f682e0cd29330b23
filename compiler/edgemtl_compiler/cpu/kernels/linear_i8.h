// Linear layers, dense MLPs and the patch embedding in INT8. Kernels take and give float; codes never leave a
// kernel.
#pragma once

#include "gemm_i8.h"
#include "linear.h"

namespace edgemtl {
namespace {

// out [rows, width] = x [rows, depth] * w + b, then GELU, or plus `residual`.
inline void linear_i8(const float* x, const uint8_t* packed, const float* residual, float* out, int rows,
                      int depth, int width, bool with_gelu) {
  const LayerI8 layer(packed, width, depth);
  Scratch scratch(code_room(rows, depth));
  Code* codes = code_rows(scratch, rows, depth);
  to_codes(x, layer.coding, codes, rows, depth);
  ProductI8 p(layer, {codes, code_stride(depth)}, width, depth);
  p.out = {out, width};
  if (residual) {
    p.epilogue = Epilogue::kResidual;
    p.residual = {residual, width};
  } else if (with_gelu) {
    p.epilogue = Epilogue::kGelu;
  }
  multiply(p, rows, threads());
}

// out [rows, width] = LayerNorm(x [rows, depth]) * w + b; depth a multiple of 16.
inline void norm_linear_i8(const float* x, const float* affine, float eps, const uint8_t* packed, float* out,
                           int rows, int depth, int width) {
  const LayerI8 layer(packed, width, depth);
  Scratch scratch(code_room(rows, depth));
  Code* codes = code_rows(scratch, rows, depth);
  const ptrdiff_t stride = code_stride(depth);
  normalise_rows(x, affine, rows, depth, eps, [&](int row, int column, Vec v) {
    store_codes(codes + row * stride + column, layer.coding(v));
  });
  close_rows(codes, rows, depth);
  ProductI8 p(layer, {codes, stride}, width, depth);
  p.out = {out, width};
  multiply(p, rows, threads());
}

// out [rows, dim] = residual + GELU(x * w1 + b1) * w2 + b2; what lies between is INT8.
inline void mlp_i8(const float* x, const uint8_t* first, const uint8_t* second, const float* residual,
                   float* out, int rows, int dim, int hidden) {
  const LayerI8 layer1(first, hidden, dim), layer2(second, dim, hidden);
  Scratch scratch(code_room(rows, dim) + code_room(rows, hidden));
  Code *codes = code_rows(scratch, rows, dim), *middle = code_rows(scratch, rows, hidden);
  to_codes(x, layer1.coding, codes, rows, dim);
  ProductI8 up(layer1, {codes, code_stride(dim)}, hidden, dim);
  up.codes = middle;
  up.coding = layer2.coding;
  multiply(up, rows, threads());
  close_rows(middle, rows, hidden);
  ProductI8 down(layer2, {middle, code_stride(hidden)}, dim, hidden);
  down.out = {out, dim};
  down.epilogue = Epilogue::kResidual;
  down.residual = {residual, dim};
  multiply(down, rows, threads());
}

// `patch_embed` of linear.h: image [3, height, width] to tokens [1 + patches, dim].
inline void patch_embed_i8(const float* image, const uint8_t* packed, const float* cls, const float* pos,
                           float* out, int height, int width, int patch, int dim) {
  const int cols = width / patch, count = height / patch * cols, depth = 3 * patch * patch,
            workers = threads();
  const LayerI8 layer(packed, dim, depth);
  for (int i = 0; i < dim; i += kLanes) store(out + i, load(cls + i) + load(pos + i));
  Scratch scratch(code_room(count, depth));
  Code* codes = code_rows(scratch, count, depth);
  const ptrdiff_t stride = code_stride(depth);
  parallel_for(workers, count, [&](int i, int) {
    Code* to = codes + i * stride;
    for (int row = 0; row < 3 * patch; ++row, to += patch) {
      const ptrdiff_t line = static_cast<ptrdiff_t>(row / patch) * height + i / cols * patch + row % patch;
      const float* from = image + line * width + i % cols * patch;
      int k = 0;
      for (; k + kLanes <= patch; k += kLanes) store_codes(to + k, layer.coding(load(from + k)));
      if (k < patch) store_codes(to + k, layer.coding(load_part(from + k, patch - k)), patch - k);
    }
    close_codes(codes + i * stride, depth);
  });
  ProductI8 p(layer, {codes, stride}, dim, depth);
  p.out = {out + dim, dim};
  p.epilogue = Epilogue::kResidual;
  p.residual = {pos + dim, dim};
  multiply(p, count, workers);
}

}  // namespace
}  // namespace edgemtl
