// Fused multi-head self-attention from the packed projection, one head and a few rows of queries at a time.
#pragma once

#include "gemm.h"

namespace edgemtl {
namespace {

// Each of `rows` rows of n scores becomes exp((scores - its max) * scale); inverse[row] is one by their sum.
// Rows are `padded`, n rounded up to whole panels, apart. All maxima come first, so that one row's reduction
// hides another's.
inline void softmax_terms(float* scores, int rows, int n, int padded, float scale, float* inverse) {
  const int whole = n / kLanes * kLanes, rest = n - whole;
  float top[2 * kRows];
  for (int i = 0; i < rows; ++i) {
    float* row = scores + i * padded;
    if (rest)
      for (int j = n; j < whole + kLanes; ++j) row[j] = row[0];  // neutral for the maximum
    Vec high = load(row);
    for (int j = kLanes; j < n; j += kLanes) high = maximum(high, load(row + j));
    top[i] = maximum(high);
  }
  const float octaves = scale * 1.44269504088896341f;
  for (int i = 0; i < rows; ++i) {
    float* row = scores + i * padded;
    const Vec high = splat(top[i]);
    Vec total = {};
    for (int j = 0; j < whole; j += kLanes) {
      const Vec e = exp2((load(row + j) - high) * octaves);
      store(row + j, e);
      total += e;
    }
    if (rest) {
      store(row + whole, exp2((load(row + whole) - high) * octaves));
      total += load_part(row + whole, rest);
    }
    inverse[i] = 1.0f / sum(total);
  }
}

// to [size][16] = the first `count` of 16 rows of `size` values, the others zero; `row` apart in memory. Four
// by four, which every machine can do in registers.
inline void transpose_panel(const float* from, ptrdiff_t row, int count, int size, float* to) {
  typedef float V4 __attribute__((vector_size(16)));
  auto get = [&](int j, int k) {
    V4 v = {};
    if (j < count) std::memcpy(&v, from + j * row + k, sizeof v);
    return v;
  };
  for (int k = 0; k < size; k += 4) {
    for (int j = 0; j < kPanel; j += 4) {
      const V4 a = get(j, k), b = get(j + 1, k), c = get(j + 2, k), d = get(j + 3, k);
      const V4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
      const V4 AB = __builtin_shufflevector(a, b, 2, 6, 3, 7), CD = __builtin_shufflevector(c, d, 2, 6, 3, 7);
      const V4 out[4] = {
          __builtin_shufflevector(ab, cd, 0, 1, 4, 5), __builtin_shufflevector(ab, cd, 2, 3, 6, 7),
          __builtin_shufflevector(AB, CD, 0, 1, 4, 5), __builtin_shufflevector(AB, CD, 2, 3, 6, 7)};
      for (int i = 0; i < 4; ++i) std::memcpy(to + (k + i) * kPanel + j, &out[i], sizeof(V4));
    }
  }
}

// qkv [n, 3 * heads * size] (queries, keys, values; each head's `size` values together) to out [n, heads *
// size].
inline void attention(const float* qkv, float* out, int n, int heads, int size) {
  // Rows of queries at once: two tiles, or one where two rows' scores would not stay in the first-level
  // cache.
  const int chunk = n <= 512 ? 2 * kRows : kRows;
  const int dim = heads * size, row = 3 * dim, panels = panels_of(n), padded = panels * kPanel,
            workers = threads();
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  const size_t head_size = static_cast<size_t>(padded) * size,
               scores_size = static_cast<size_t>(chunk) * padded;
  Scratch scratch(2 * heads * head_size + workers * Scratch::line(scores_size));
  float* keys = scratch.array(heads * head_size);
  float* values = scratch.array(heads * head_size);
  float* scores[kMaxThreads];
  for (int t = 0; t < workers; ++t) scores[t] = scratch.array(scores_size);

  // Keys as panels of 16 tokens, the form of a weight; values with the rows of a head side by side, because
  // rows of qkv lie a page apart.
  parallel_for(workers, heads * panels, [&](int item, int) {
    const int head = item / panels, first = item % panels * kPanel, count = std::min(kPanel, n - first);
    const float* from = qkv + static_cast<ptrdiff_t>(first) * row + dim + head * size;
    const size_t at = head * head_size + static_cast<size_t>(first) * size;
    transpose_panel(from, row, count, size, keys + at);
    for (int j = 0; j < count; ++j)
      std::memcpy(values + at + j * size, from + dim + j * row, size * sizeof(float));
  });

  const int chunks = ceil_div(n, chunk);
  parallel_for(workers, heads * chunks, [&](int item, int worker) {
    const int head = item / chunks, first = item % chunks * chunk, count = std::min(chunk, n - first);
    float inverse[2 * kRows];
    Product s;
    s.a = {qkv + static_cast<ptrdiff_t>(first) * row + head * size, row};
    s.depth = size;
    s.b = keys + head * head_size;
    s.panel_step = static_cast<ptrdiff_t>(size) * kPanel;
    s.width = padded;
    s.out = {scores[worker], padded};
    block(s, 0, count, 0, panels);
    softmax_terms(scores[worker], count, n, padded, scale, inverse);
    Product v;
    v.a = s.out;
    v.depth = n;
    v.b = values + head * head_size;
    v.panel_step = kPanel;
    v.depth_step = size;
    v.width = size;
    v.out = {out + static_cast<ptrdiff_t>(first) * dim + head * size, dim};
    v.epilogue = Epilogue::kScale;
    v.scale = inverse;
    block(v, 0, count, 0, panels_of(size));
  });
}

}  // namespace
}  // namespace edgemtl
