// An inverted residual in INT8: what lies between its steps are codes of one byte.
#pragma once

#include "depthwise_i8.h"
#include "inverted_residual.h"
#include "open_layer.h"

namespace edgemtl {
namespace {

// As `inverted_residual`, with a first step.
inline void inverted_residual_i8(const float* x, const uint8_t* expand, const float* taps,
                                 const uint8_t* project, float* out, const Window& w, int inputs, int middle,
                                 int outputs, bool shortcut) {
  const OpenLayer last(project, outputs, middle);
  const OpenTaps open(taps, w, middle, last.layer.coding);
  const int workers = threads(), dim = open.channels();
  const size_t before = code_room(w.width, inputs);
  const size_t after = code_room(w.out_width, middle) + Scratch::line(kBlock);
  Scratch scratch(workers * (before + after));
  Code *narrow[kMaxThreads], *wide[kMaxThreads];
  for (int t = 0; t < workers; ++t) {
    narrow[t] = reinterpret_cast<Code*>(scratch.array<int32_t>(before));
    wide[t] = reinterpret_cast<Code*>(scratch.array<int32_t>(after));
  }
  const ptrdiff_t stride = code_stride(middle);
  auto contract = [&](const uint8_t* const* lines, int y, int worker) {
    const ptrdiff_t at = static_cast<ptrdiff_t>(y) * w.out_width * outputs;
    depthwise_codes(open, lines, wide[worker], stride, w);
    for (int i = 0; i < w.out_width; ++i) close_codes(wide[worker] + i * stride, middle);
    ProductI8 p(last.layer, {wide[worker], stride}, outputs, middle);
    p.out = {out + at, outputs};
    if (shortcut) {
      p.epilogue = Epilogue::kResidual;
      p.residual = {x + at, outputs};
    }
    last.multiply(p, w.out_width);
  };
  const OpenLayer first(expand, middle, inputs, kLevels);
  inverted_strips<uint8_t>(
      w, dim,
      [&](int y, uint8_t* to, int worker) {
        first.code(x + static_cast<ptrdiff_t>(y) * w.width * inputs, narrow[worker], w.width);
        ProductI8 p(first.layer, {narrow[worker], code_stride(inputs)}, middle, inputs);
        p.levels = to;
        p.levels_stride = dim;
        first.multiply(p, w.width);
      },
      contract);
}

}  // namespace
}  // namespace edgemtl
