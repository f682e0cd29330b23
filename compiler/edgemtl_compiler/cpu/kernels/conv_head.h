// M3ViT's decoder (Liang et al., NeurIPS 2022): a 3x3 convolution and ReLU, of a map or of that map doubled.
//
// Maps are [height, width, channels]. The doubled map is never stored: its pixels are made where they are
// read. Columns of pixels lie one after the other in a thread's buffer, so that the nine neighbours of a
// pixel are one row of the product and the rows of neighbouring pixels overlap.
#pragma once

#include "gemm.h"

namespace edgemtl {
namespace {

// How one coordinate of a map of `size` doubled by bilinear interpolation, pixel centres at halves, is made:
// three parts of `near` and one of `far`.
struct Doubled {
  int near, far;
  Doubled(int at, int size) : near(at / 2), far(std::clamp(at / 2 + (at % 2 ? 1 : -1), 0, size - 1)) {}
};

// The pixel (y, x) of the map, or of the map doubled; zero outside.
struct Source {
  const float* map;
  int height, width, dim;  // of the map as it is stored
  bool twice;

  const float* at(int y, int x) const { return map + (static_cast<ptrdiff_t>(y) * width + x) * dim; }

  void copy(int y, int x, float* to) const {
    const int scale = twice ? 2 : 1;
    if (y < 0 || x < 0 || y >= scale * height || x >= scale * width) {
      std::memset(to, 0, dim * sizeof(float));
      return;
    }
    if (!twice) {
      std::memcpy(to, at(y, x), dim * sizeof(float));
      return;
    }
    const Doubled v(y, height), h(x, width);
    const float *a = at(v.near, h.near), *b = at(v.near, h.far), *c = at(v.far, h.near),
                *d = at(v.far, h.far);
    const Vec quarter = splat(0.25f), rest = splat(0.75f);
    for (int i = 0; i < dim; i += kLanes) {
      const Vec close = load(a + i) * rest + load(b + i) * quarter;
      const Vec other = load(c + i) * rest + load(d + i) * quarter;
      store(to + i, close * rest + other * quarter);
    }
  }
};

// out [height, width, channels] = ReLU(convolution), of x [height, width, dim] or, with `twice`, of x
// [height / 2, width / 2, dim] doubled. packed: [channels, 3 * 3 * dim], the taps column by column. dim is a
// multiple of 16.
inline void conv_relu(const float* x, Packed packed, float* out, int height, int width, int dim, int channels,
                      bool twice) {
  constexpr int kChunk = 8 * kRows;  // pixels of a work item: they share one reading of the weights
  const int chunks = ceil_div(width, kChunk), workers = threads(), column = 3 * dim;
  const Source source{x, twice ? height / 2 : height, twice ? width / 2 : width, dim, twice};
  const size_t room = static_cast<size_t>(std::min(kChunk, width) + 2) * column;
  Scratch scratch(workers * Scratch::line(room));
  float* columns[kMaxThreads];
  for (int t = 0; t < workers; ++t) columns[t] = scratch.array(room);

  parallel_for(workers, height * chunks, [&](int item, int worker) {
    const int y = item / chunks, first = item % chunks * kChunk, count = std::min(kChunk, width - first);
    float* to = columns[worker];
    for (int i = -1; i <= count; ++i)
      for (int line = y - 1; line <= y + 1; ++line, to += dim) source.copy(line, first + i, to);
    Product p;
    use_linear(p, packed, channels, 3 * column);
    p.a = {columns[worker], column};
    p.out = {out + (static_cast<ptrdiff_t>(y) * width + first) * channels, channels};
    p.epilogue = Epilogue::kRelu;
    block(p, 0, count, 0, panels_of(channels));
  });
}

}  // namespace
}  // namespace edgemtl
