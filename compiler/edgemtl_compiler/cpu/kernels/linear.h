// Linear layers, layer normalisation, and the patch embedding.
#pragma once

#include "gemm.h"

namespace edgemtl {
namespace {

// out [rows, width] = x [rows, depth] * w + b, then GELU, or plus `residual`.
inline void linear(const float* x, Packed packed, const float* residual, float* out, int rows, int depth,
                   int width, bool with_gelu) {
  Product p;
  p.a = {x, depth};
  p.out = {out, width};
  use_linear(p, packed, width, depth);
  if (residual) {
    p.epilogue = Epilogue::kResidual;
    p.residual = {residual, width};
  } else if (with_gelu) {
    p.epilogue = Epilogue::kGelu;
  }
  multiply(p, rows, threads());
}

// LayerNorm of one row of `dim` values, a multiple of 16: take(column, values) gets kLanes at a time. affine:
// weight [dim], bias [dim].
template <class Take>
inline void normalise(const float* in, const float* affine, int dim, float eps, const Take& take) {
  Vec total = {}, squares = {};
  for (int i = 0; i < dim; i += kLanes) total += load(in + i);
  const Vec mean = splat(sum(total) / dim);
  for (int i = 0; i < dim; i += kLanes) {
    const Vec d = load(in + i) - mean;
    squares += d * d;
  }
  const Vec scale = splat(1.0f / std::sqrt(sum(squares) / dim + eps));
  for (int i = 0; i < dim; i += kLanes)
    take(i, (load(in + i) - mean) * scale * load(affine + i) + load(affine + dim + i));
}

// The same of `rows` rows, some at a time on each thread: take(row, column, values).
template <class Take>
inline void normalise_rows(const float* x, const float* affine, int rows, int dim, float eps,
                           const Take& take) {
  constexpr int kChunk = 32;
  const int workers =
      rows * dim < (1 << 14) ? 1 : threads();  // below that, waking a thread costs more than it saves
  parallel_for(workers, ceil_div(rows, kChunk), [&](int item, int) {
    for (int row = item * kChunk; row < std::min(rows, (item + 1) * kChunk); ++row)
      normalise(x + static_cast<ptrdiff_t>(row) * dim, affine, dim, eps,
                [&](int column, Vec v) { take(row, column, v); });
  });
}

inline void layernorm(const float* x, const float* affine, float* out, int rows, int dim, float eps) {
  normalise_rows(x, affine, rows, dim, eps, [=](int row, int column, Vec v) {
    store(out + static_cast<ptrdiff_t>(row) * dim + column, v);
  });
}

// image [3, height, width] to tokens [1 + patches, dim]: row 0 is the class token, row 1 + i the i-th patch
// times the packed [dim, 3 * patch * patch] weights; the position embedding is added to every row.
inline void patch_embed(const float* image, Packed packed, const float* cls, const float* pos, float* out,
                        int height, int width, int patch, int dim) {
  constexpr int kChunk = 2 * kRows;
  const int cols = width / patch, count = height / patch * cols, depth = 3 * patch * patch,
            workers = threads();
  for (int i = 0; i < dim; i += kLanes) store(out + i, load(cls + i) + load(pos + i));
  Scratch scratch(workers * Scratch::line(static_cast<size_t>(kChunk) * depth));
  float* gathered[kMaxThreads];
  for (int t = 0; t < workers; ++t) gathered[t] = scratch.array(static_cast<size_t>(kChunk) * depth);
  parallel_for(workers, ceil_div(count, kChunk), [&](int item, int worker) {
    const int first = item * kChunk, n = std::min(kChunk, count - first);
    float* to = gathered[worker];
    for (int i = first; i < first + n; ++i)
      for (int c = 0; c < 3; ++c)
        for (int y = 0; y < patch; ++y, to += patch) {
          const ptrdiff_t line = static_cast<ptrdiff_t>(c) * height + i / cols * patch + y;
          std::memcpy(to, image + line * width + i % cols * patch, patch * sizeof(float));
        }
    Product p;
    use_linear(p, packed, dim, depth);
    p.a = {gathered[worker], depth};
    p.out = {out + static_cast<ptrdiff_t>(1 + first) * dim, dim};
    p.epilogue = Epilogue::kResidual;
    p.residual = {pos + static_cast<ptrdiff_t>(1 + first) * dim, dim};
    block(p, 0, n, 0, panels_of(dim));
  });
}

}  // namespace
}  // namespace edgemtl
