// Task-gated sparse experts in INT8: `experts` of experts.h with a quarter of its weights' bytes per frame.
#pragma once

#include "experts.h"
#include "gemm_i8.h"

namespace edgemtl {
namespace {

// out [n, dim] = residual + sum of score * expert(tokens) over the k chosen; weights[e] is expert e packed:
// dim -> hidden, GELU, hidden -> dim. All experts read the tokens in one scale; each has its own for what it
// hides. False, with nothing written, when an index is not in [0, count).
inline bool experts_i8(const float* tokens, const int64_t* index, const float* score, const float* residual,
                       float* out, const uint8_t* const* weights, int count, int n, int k, int dim,
                       int hidden) {
  const int pairs = n * k, workers = threads();
  Scratch scratch(Queues::room(count, pairs) + Scratch::line(count + 1) + code_room(n, dim) +
                  code_room(pairs, hidden));
  Queues queues;
  if (!queue_tokens(scratch, index, score, count, n, k, queues)) return false;
  const int32_t *start = queues.start, *token = queues.token;
  int32_t* item_start = scratch.array<int32_t>(count + 1);
  Code *codes = code_rows(scratch, n, dim), *middle = code_rows(scratch, pairs, hidden);
  to_codes(tokens, LayerI8(weights[0], hidden, dim).coding, codes, n, dim);

  const int groups = ceil_div(panels_of(hidden), kDotGroup);
  item_start[0] = 0;
  for (int e = 0; e < count; ++e)
    item_start[e + 1] = item_start[e] + ceil_div(queues.length(e), kRowChunkI8) * groups;
  OpenPanels open(steps_of(std::max(dim, hidden)), workers);
  parallel_for(workers, item_start[count], [&](int item, int worker) {
    const int e =
        static_cast<int>(std::upper_bound(item_start, item_start + count + 1, item) - item_start) - 1;
    const int chunks = ceil_div(queues.length(e), kRowChunkI8), within = item - item_start[e];
    const int row = start[e] + within % chunks * kRowChunkI8, panel = within / chunks * kDotGroup;
    ProductI8 p(LayerI8(weights[e], hidden, dim), {codes, code_stride(dim), token}, hidden, dim);
    p.codes = middle;
    p.coding = LayerI8(weights[e] + LayerI8::bytes(hidden, dim), dim, hidden).coding;
    block(p, row, std::min(start[e + 1], row + kRowChunkI8), panel,
          std::min(panels_of(hidden), panel + kDotGroup), open, worker);
  });
  close_rows(middle, pairs, hidden);

  // A thread owns columns of the output, so that every sum runs over the experts in the same order.
  const int panels = panels_of(dim), slice = slice_for(panels, workers);
  parallel_for(workers, ceil_div(panels, slice), [&](int item, int worker) {
    const int panel = item * slice, end = std::min(panels, panel + slice);
    const int column = panel * kPanel, columns = std::min(dim, end * kPanel) - column;
    for (int i = 0; i < n; ++i) {
      const ptrdiff_t at = static_cast<ptrdiff_t>(i) * dim + column;
      std::memcpy(out + at, residual + at, columns * sizeof(float));
    }
    for (int e = 0; e < count; ++e) {
      const LayerI8 layer(weights[e] + LayerI8::bytes(hidden, dim), dim, hidden);
      ProductI8 p(layer, {middle, code_stride(hidden)}, dim, hidden);
      p.out = {out, dim, token};
      p.epilogue = Epilogue::kAccumulate;
      p.scale = queues.weight;
      block(p, start[e], start[e + 1], panel, end, open, worker);
    }
  });
  return true;
}

}  // namespace
}  // namespace edgemtl
