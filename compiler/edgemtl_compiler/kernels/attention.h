// Fused multi-head self-attention from the packed projection, one head and a few rows of queries at a time.
#pragma once

#include "gemm.h"

namespace edgemtl {
namespace {

// scores [n] become exp((scores - max) * scale); returns their sum. Room for a whole panel past n is there.
inline float softmax_terms(float* scores, int n, float scale) {
  const int whole = n / kLanes * kLanes, rest = n - whole;
  if (rest)
    for (int j = n; j < whole + kLanes; ++j) scores[j] = scores[0];  // neutral for the maximum
  Vec high = load(scores);
  for (int j = 0; j < n; j += kLanes) high = maximum(high, load(scores + j));
  const Vec top = splat(maximum(high));
  Vec total = {};
  for (int j = 0; j < n; j += kLanes) {
    const Vec e = exp((load(scores + j) - top) * scale);
    store(scores + j, e);
    total += j < whole ? e : load_part(scores + j, rest);
  }
  return sum(total);
}

// qkv [n, 3 * heads * size] (queries, keys, values; each head's `size` values together) to out [n, heads *
// size].
inline void attention(const float* qkv, float* out, int n, int heads, int size) {
  constexpr int kChunk = 2 * kRows;
  const int dim = heads * size, row = 3 * dim, panels = panels_of(n), padded = panels * kPanel,
            workers = threads();
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  const size_t keys_size = static_cast<size_t>(padded) * size,
               scores_size = static_cast<size_t>(kChunk) * padded;
  Scratch scratch(heads * keys_size + workers * Scratch::line(scores_size));
  float* keys = scratch.array(heads * keys_size);
  float* scores[kMaxThreads];
  for (int t = 0; t < workers; ++t) scores[t] = scratch.array(scores_size);

  // Keys as panels of 16 tokens, the form of a weight.
  parallel_for(workers, heads * panels, [&](int item, int) {
    const int head = item / panels, panel = item % panels, first = panel * kPanel;
    const float* from = qkv + static_cast<ptrdiff_t>(first) * row + dim + head * size;
    float* to = keys + head * keys_size + static_cast<size_t>(panel) * kPanel * size;
    for (int j = 0; j < kPanel; ++j, from += row) {
      if (first + j < n) {
        for (int k = 0; k < size; ++k) to[k * kPanel + j] = from[k];
      } else {
        for (int k = 0; k < size; ++k) to[k * kPanel + j] = 0;
      }
    }
  });

  const int chunks = ceil_div(n, kChunk);
  parallel_for(workers, heads * chunks, [&](int item, int worker) {
    const int head = item / chunks, first = item % chunks * kChunk, count = std::min(kChunk, n - first);
    float sums[kChunk];
    Product s;
    s.a = {qkv + static_cast<ptrdiff_t>(first) * row + head * size, row};
    s.depth = size;
    s.b = keys + head * keys_size;
    s.panel_step = static_cast<ptrdiff_t>(size) * kPanel;
    s.width = padded;
    s.out = {scores[worker], padded};
    block(s, 0, count, 0, panels);
    for (int i = 0; i < count; ++i) sums[i] = 1.0f / softmax_terms(scores[worker] + i * padded, n, scale);
    Product v;
    v.a = s.out;
    v.depth = n;
    v.b = qkv + 2 * dim + head * size;
    v.panel_step = kPanel;
    v.depth_step = row;
    v.width = size;
    v.out = {out + static_cast<ptrdiff_t>(first) * dim + head * size, dim};
    v.epilogue = Epilogue::kScale;
    v.scale = sums;
    block(v, 0, count, 0, panels_of(size));
  });
}

}  // namespace
}  // namespace edgemtl
