// An INT8 layer made ready for products of few rows at a time, each on one thread.
#pragma once

#include "gemm_i8.h"

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

}  // namespace
}  // namespace edgemtl
