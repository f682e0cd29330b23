// An inverted residual in INT8: what lies between its steps are codes of one byte.
#pragma once

#include "depthwise_i8.h"
#include "inverted_residual.h"

namespace edgemtl {
namespace {

// A layer with all its panels open, for products of few rows at a time: opening must not count beside them.
class OpenLayer {
 public:
  // factor: what the layer's values are multiplied by.
  OpenLayer(const uint8_t* packed, int width, int depth, float factor = 1)
      : layer(packed, width, depth),
        width(width),
        depth(depth),
        scratch_(2 * Scratch::line(width) + (kAsStored ? 0 : words())) {
    if (factor != 1) {
      float *scale = scratch_.array(width), *bias = scratch_.array(width);
      for (int i = 0; i < width; ++i) {
        scale[i] = layer.scale[i] * factor;
        bias[i] = layer.bias[i] * factor;
      }
      layer.scale = scale;
      layer.bias = bias;
    }
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

  LayerI8 layer;
  const int width, depth;

 private:
  size_t words() const {
    return static_cast<size_t>(panels_of(width)) * panel_weights(steps_of(depth)) * sizeof(Weight) / 4;
  }
  Scratch scratch_;
  Weight* room_ = nullptr;
};

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
