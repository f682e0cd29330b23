// Task-gated sparse experts (M3ViT, Liang et al., NeurIPS 2022): the gate's choice, and the chosen experts'
// work.
//
// Experts run one after the other, each over exactly the tokens that chose it, so its weights are read once
// (M3ViT's computation reordering). Ties of the gate go to the lower index. Sums into a token run in
// ascending expert order.
#pragma once

#include "dispatch.h"
#include "gemm.h"

namespace edgemtl {
namespace {

// tokens [n, dim] times the packed gate [columns, dim]; of the columns only `path` [paths] counts. index [n,
// k] gets positions in `path`, by falling logit; score [n, k] their softmax over the path, if asked divided
// by their sum.
inline void route(const float* tokens, const float* gate, const int64_t* path, int paths, int columns,
                  int64_t* index, float* score, int n, int dim, int k, bool renormalise) {
  if (paths == 1) {  // a dense layer kept as a bank of one: the softmax of one number is 1
    std::fill(index, index + n, 0);
    std::fill(score, score + n, 1.0f);
    return;
  }
  constexpr int kChunk = 2 * kRows;
  const int panels = panels_of(columns), wide = panels * kPanel, width = panels_of(paths) * kPanel,
            workers = threads();
  Scratch scratch(workers * (Scratch::line(static_cast<size_t>(kChunk) * wide) + 2 * width));
  float *logits[kMaxThreads], *terms[kMaxThreads];
  for (int t = 0; t < workers; ++t) {
    logits[t] = scratch.array(static_cast<size_t>(kChunk) * wide);
    terms[t] = scratch.array(2 * width);
  }
  parallel_for(workers, ceil_div(n, kChunk), [&](int item, int worker) {
    const int first = item * kChunk, count = std::min(kChunk, n - first);
    Product p;
    use_linear(p, gate, wide, dim);
    p.a = {tokens + static_cast<ptrdiff_t>(first) * dim, dim};
    p.out = {logits[worker], wide};
    block(p, 0, count, 0, panels);
    for (int i = 0; i < count; ++i) {
      const float* logit = logits[worker] + i * wide;
      float *term = terms[worker], *own = term + width, top = logit[path[0]], total = 0;
      for (int e = 0; e < width; ++e) own[e] = logit[path[std::min(e, paths - 1)]];
      for (int e = 1; e < paths; ++e) top = own[e] > top ? own[e] : top;
      for (int e = 0; e < width; e += kLanes) store(term + e, exp(load(own + e) - top));
      for (int e = 0; e < paths; ++e) total += term[e];
      int64_t* chosen = index + static_cast<ptrdiff_t>(first + i) * k;
      for (int e = 0; e < paths; ++e) {  // the best so far lie in order; of equals the first one stays before
        int at = std::min(e, k);
        if (at == k && !(own[e] > own[chosen[--at]])) continue;
        for (; at > 0 && own[e] > own[chosen[at - 1]]; --at) chosen[at] = chosen[at - 1];
        chosen[at] = e;
      }
      float *weight = score + static_cast<ptrdiff_t>(first + i) * k, kept = 0;
      for (int j = 0; j < k; ++j) {
        weight[j] = term[chosen[j]] / total;
        kept += weight[j];
      }
      if (renormalise)
        for (int j = 0; j < k; ++j) weight[j] /= kept;
    }
  });
}

// Panels that one thread should take at once so that the busiest one has least to do; of equals the widest.
inline int slice_for(int panels, int workers) {
  int best = 1, least = panels + 1;
  for (int s = 1; s <= kGroup; ++s) {
    const int most = ceil_div(ceil_div(panels, s), workers) * s;
    if (most <= least) best = s, least = most;
  }
  return best;
}

// out [n, dim] = residual + sum of score * expert(tokens) over the k chosen; weights[e] is expert e packed:
// dim -> hidden, GELU, hidden -> dim. False, with nothing written, when an index is not in [0, count).
inline bool experts(const float* tokens, const int64_t* index, const float* score, const float* residual,
                    float* out, const Packed* weights, int count, int n, int k, int dim, int hidden) {
  const int pairs = n * k, workers = threads();
  Scratch scratch(Queues::room(count, pairs) + Scratch::line(count + 1) +
                  Scratch::line(static_cast<size_t>(pairs) * hidden));
  Queues queues;
  if (!queue_tokens(scratch, index, score, count, n, k, queues)) return false;
  const int32_t *start = queues.start, *token = queues.token;
  const float* weight = queues.weight;
  int32_t* item_start = scratch.array<int32_t>(count + 1);
  float* middle = scratch.array(static_cast<size_t>(pairs) * hidden);
  const int groups = ceil_div(panels_of(hidden), kGroup);
  item_start[0] = 0;
  for (int e = 0; e < count; ++e)
    item_start[e + 1] = item_start[e] + ceil_div(queues.length(e), kRowChunk) * groups;

  parallel_for(workers, item_start[count], [&](int item, int) {
    const int e =
        static_cast<int>(std::upper_bound(item_start, item_start + count + 1, item) - item_start) - 1;
    const int chunks = ceil_div(start[e + 1] - start[e], kRowChunk), within = item - item_start[e];
    const int row = start[e] + within % chunks * kRowChunk, panel = within / chunks * kGroup;
    const int end = std::min(panels_of(hidden), panel + kGroup);
    Product p;
    use_linear(p, weights[e], hidden, dim);
    p.a = {tokens, dim, token};
    p.out = {middle, hidden};
    p.epilogue = Epilogue::kGelu;
    Ahead next;
    if (row + kRowChunk >=
        start[e + 1]) {  // the expert's last rows: its next panels, or the next expert's first
      next = panels_ahead(p, end, std::min(panels_of(hidden), end + kGroup));
      if (const int follows = queues.next(e); next.bytes == 0 && follows < count) {
        Product then;
        use_linear(then, weights[follows], hidden, dim);
        next = panels_ahead(then, 0, std::min(panels_of(hidden), kGroup));
      }
    }
    tile(p, row, std::min(start[e + 1], row + kRowChunk), panel, end, next);
  });

  // A thread owns columns of the output, so that every sum runs over the experts in the same order.
  const int panels = panels_of(dim), slice = slice_for(panels, workers);
  parallel_for(workers, ceil_div(panels, slice), [&](int item, int) {
    const int panel = item * slice, end = std::min(panels, panel + slice);
    const int column = panel * kPanel, columns = std::min(dim, end * kPanel) - column;
    for (int i = 0; i < n; ++i) {
      const ptrdiff_t at = static_cast<ptrdiff_t>(i) * dim + column;
      std::memcpy(out + at, residual + at, columns * sizeof(float));
    }
    Product p, then;
    p.a = {middle, hidden};
    p.out = {out, dim, token};
    p.epilogue = Epilogue::kAccumulate;
    p.scale = weight;
    for (int e = queues.next(-1); e < count; e = queues.next(e)) {
      use_linear(p, weights[e] + linear_size(hidden, dim), dim, hidden);
      const int follows = queues.next(e);
      Ahead next;
      if (follows < count) {
        use_linear(then, weights[follows] + linear_size(hidden, dim), dim, hidden);
        next = panels_ahead(then, panel, end);
      }
      tile(p, start[e], start[e + 1], panel, end, next);
    }
  });
  return true;
}

}  // namespace
}  // namespace edgemtl
