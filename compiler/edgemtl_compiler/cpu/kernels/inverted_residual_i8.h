// An inverted residual whose 1x1 steps are INT8; the depthwise one between them is float.
#pragma once

#include "gemm_i8.h"
#include "inverted_residual.h"

namespace edgemtl {
namespace {

// A layer with all its panels open, for products of few rows at a time: opening must not count beside them.
class OpenLayer {
 public:
  OpenLayer(const uint8_t* packed, int width, int depth)
      : layer(packed, width, depth), width(width), depth(depth), scratch_(kAsStored ? 0 : words()) {
    if (kAsStored) return;
    room_ = reinterpret_cast<Weight*>(scratch_.array<int32_t>(words()));
    const int steps = steps_of(depth), panels = panels_of(width);
    for (int panel = 0; panel < panels; panel += kDotGroup)
      open_panels(layer.panels + static_cast<ptrdiff_t>(panel) * steps * kStep,
                  std::min(kDotGroup, panels - panel), steps, room_ + panel * panel_weights(steps));
  }

  // rows of `p`, one after the other on this thread.
  void multiply(const ProductI8& p, int rows) const {
    const int panels = panels_of(width);
    for (int panel = 0; panel < panels; panel += kDotGroup) {
      const Weight* weights;
      if constexpr (kAsStored) {
        weights = reinterpret_cast<const Weight*>(layer.panels) + panel * panel_weights(p.steps);
      } else {
        weights = room_ + panel * panel_weights(p.steps);
      }
      strip_of(p, 0, rows, panel, std::min(kDotGroup, panels - panel), weights);
    }
  }

  // Codes of `rows` rows of x, on this thread.
  void code(const float* x, Code* codes, int rows) const {
    for (int row = 0; row < rows; ++row, x += depth) {
      Code* to = codes + static_cast<ptrdiff_t>(row) * code_stride(depth);
      int k = 0;
      for (; k + kLanes <= depth; k += kLanes) store_codes(to + k, layer.coding(load(x + k)));
      if (k < depth) store_codes(to + k, layer.coding(load_part(x + k, depth - k)), depth - k);
      close_codes(to, depth);
    }
  }

  const LayerI8 layer;
  const int width, depth;

 private:
  size_t words() const {
    return static_cast<size_t>(panels_of(width)) * panel_weights(steps_of(depth)) * sizeof(Weight) / 4;
  }
  Scratch scratch_;
  Weight* room_ = nullptr;
};

// As `inverted_residual`; without `expand` the inputs are the middle.
inline void inverted_residual_i8(const float* x, const uint8_t* expand, const float* taps,
                                 const uint8_t* project, float* out, const Window& w, int inputs, int middle,
                                 int outputs, bool shortcut) {
  const OpenLayer last(project, outputs, middle);
  const int workers = threads();
  const size_t before = code_room(w.width, inputs), after = code_room(w.out_width, middle);
  Scratch scratch(workers * (before + after));
  Code *narrow[kMaxThreads], *wide[kMaxThreads];
  for (int t = 0; t < workers; ++t) {
    narrow[t] = code_rows(scratch, w.width, inputs);
    wide[t] = code_rows(scratch, w.out_width, middle);
  }
  auto contract = [&](const float* mixed, int y, int worker) {
    const ptrdiff_t at = static_cast<ptrdiff_t>(y) * w.out_width * outputs;
    last.code(mixed, wide[worker], w.out_width);
    ProductI8 p(last.layer, {wide[worker], code_stride(middle)}, outputs, middle);
    p.out = {out + at, outputs};
    if (shortcut) {
      p.epilogue = Epilogue::kResidual;
      p.residual = {x + at, outputs};
    }
    last.multiply(p, w.out_width);
  };
  if (!expand) {
    inverted_strips(
        taps, w, middle,
        [&](int y, float* to, int) {
          std::memcpy(to, x + static_cast<ptrdiff_t>(y) * w.width * middle,
                      static_cast<size_t>(w.width) * middle * sizeof(float));
        },
        contract);
    return;
  }
  const OpenLayer first(expand, middle, inputs);
  inverted_strips(
      taps, w, middle,
      [&](int y, float* to, int worker) {
        first.code(x + static_cast<ptrdiff_t>(y) * w.width * inputs, narrow[worker], w.width);
        ProductI8 p(first.layer, {narrow[worker], code_stride(inputs)}, middle, inputs);
        p.out = {to, middle};
        p.epilogue = Epilogue::kRelu6;
        first.multiply(p, w.width);
      },
      contract);
}

}  // namespace
}  // namespace edgemtl
