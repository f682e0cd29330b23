// A head's step whose 1x1 half is INT8; the depthwise half is float.
#pragma once

#include "head.h"
#include "open_layer.h"

namespace edgemtl {
namespace {

// As `separable_step`, with the coarse GELU.
inline void separable_step_i8(const float* x, const float* taps, const uint8_t* mix, float* out,
                              const Tiles& map) {
  const int width = map.width(), dim = map.dim, workers = threads();
  const OpenLayer last(mix, dim, dim);
  const ptrdiff_t stride = code_stride(dim);
  Scratch scratch(Scratch::line(width) + workers * code_room(width, dim));
  int32_t* column = scratch.array<int32_t>(width);
  Code* lines[kMaxThreads];
  for (int t = 0; t < workers; ++t) lines[t] = code_rows(scratch, width, dim);
  for (int i = 0; i < width; ++i) column[i] = map.column(i);

  parallel_for(workers, map.height(), [&](int y, int worker) {
    Code* codes = lines[worker];
    const Coding coding = last.layer.coding;
    depthwise_line(x, taps, y, column, map, [=](int i, int d, auto& sums) {
      gelu_coarse(sums);
      for (const Vec& sum : sums) store_codes(codes + i++ * stride + d, coding(sum));
    });
    for (int i = 0; i < width; ++i) close_codes(codes + i * stride, dim);
    ProductI8 p(last.layer, {codes, stride}, dim, dim);
    p.out = {out + map.line(y), dim, column};
    p.epilogue = Epilogue::kResidual;
    p.residual = {x + map.line(y), dim, column};
    last.multiply(p, width);
  });
}

}  // namespace
}  // namespace edgemtl
