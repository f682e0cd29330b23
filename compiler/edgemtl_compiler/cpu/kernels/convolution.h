// Convolutions of maps [height, width, channels]: of any kernel and stride, zeros around the map.
//
// Columns of pixels lie one after the other in a thread's buffer, so that what one output pixel sees is one
// row of the product, and the rows of neighbouring pixels overlap.
#pragma once

#include "gemm.h"

namespace edgemtl {
namespace {

constexpr int kMostDown = 16;  // rows that a kernel sees

// What a kernel of size `down` x `across` sees of a map; `top` and `left`: rows and columns of zeros before
// it.
struct Window {
  int height, width;  // of the map
  int down, across, step_down, step_across, top, left;
  int out_height, out_width;
};

// A map that is read column by column: channels last, or as `planes` of one channel each, as a picture is
// given.
struct Pixels {
  const float* map;
  int height, width, dim;
  bool planes;

  // Columns [x, x + count) of rows [y, y + down), one column [down][dim] after the other; zeros around the
  // map.
  void columns(int y, int x, int down, int count, float* to) const {
    const int begin = std::clamp(-x, 0, count), end = std::clamp(width - x, begin, count);
    const ptrdiff_t column = static_cast<ptrdiff_t>(down) * dim;
    if (y < 0 || y + down > height) std::memset(to, 0, count * column * sizeof(float));
    for (int i = 0; i < begin; ++i) std::memset(to + i * column, 0, column * sizeof(float));
    for (int i = end; i < count; ++i) std::memset(to + i * column, 0, column * sizeof(float));
    for (int j = std::max(0, -y); j < std::min(down, height - y); ++j) {
      const ptrdiff_t at = static_cast<ptrdiff_t>(y + j) * width + x;
      float* line = to + j * dim;
      if (!planes) {
        for (int i = begin; i < end; ++i)
          std::memcpy(line + i * column, map + (at + i) * dim, dim * sizeof(float));
        continue;
      }
      for (int c = 0; c < dim; ++c) {
        const float* from = map + c * static_cast<ptrdiff_t>(height) * width + at;
        for (int i = begin; i < end; ++i) line[i * column + c] = from[i];
      }
    }
  }
};

// out [out_height, out_width, channels] = epilogue(convolution of x). packed: [channels, across * down *
// dim], the taps column by column. residual: as out, for the epilogue that adds it.
inline void convolution(const Pixels& x, Packed packed, const float* residual, float* out, const Window& w,
                        int channels, Epilogue epilogue) {
  constexpr int kChunk = 8 * kRows;  // pixels of a work item: they share one reading of the weights
  const int chunks = ceil_div(w.out_width, kChunk), workers = threads(), column = w.down * x.dim;
  const int most = (std::min(kChunk, w.out_width) - 1) * w.step_across + w.across;  // columns of an item
  const size_t room = static_cast<size_t>(most) * column;
  Scratch scratch(workers * Scratch::line(room));
  float* columns[kMaxThreads];
  for (int t = 0; t < workers; ++t) columns[t] = scratch.array(room);

  parallel_for(workers, w.out_height * chunks, [&](int item, int worker) {
    const int y = item / chunks, first = item % chunks * kChunk,
              count = std::min(kChunk, w.out_width - first);
    const int above = y * w.step_down - w.top, before = first * w.step_across - w.left;
    x.columns(above, before, w.down, (count - 1) * w.step_across + w.across, columns[worker]);
    const ptrdiff_t at = (static_cast<ptrdiff_t>(y) * w.out_width + first) * channels;
    Product p;
    use_linear(p, packed, channels, w.across * column);
    p.a = {columns[worker], static_cast<ptrdiff_t>(w.step_across) * column};
    p.out = {out + at, channels};
    p.epilogue = epilogue;
    if (residual) p.residual = {residual + at, channels};
    block(p, 0, count, 0, panels_of(channels));
  });
}

// out = finer + x [height / 2, width / 2, dim] doubled by bilinear interpolation, pixel centres at halves.
// dim is a multiple of 16.
inline void doubled_sum(const float* x, const float* finer, float* out, int height, int width, int dim) {
  const int half_height = height / 2, half_width = width / 2;
  parallel_for(threads(), height, [&](int y, int) {
    const int near = y / 2, far = std::clamp(near + (y % 2 ? 1 : -1), 0, half_height - 1);
    const float *a = x + static_cast<ptrdiff_t>(near) * half_width * dim,
                *b = x + static_cast<ptrdiff_t>(far) * half_width * dim;
    const ptrdiff_t line = static_cast<ptrdiff_t>(y) * width * dim;
    const Vec quarter = splat(0.25f), rest = splat(0.75f);
    for (int i = 0; i < width; ++i) {
      const int close = i / 2 * dim, other = std::clamp(i / 2 + (i % 2 ? 1 : -1), 0, half_width - 1) * dim;
      const ptrdiff_t to = line + static_cast<ptrdiff_t>(i) * dim;
      for (int d = 0; d < dim; d += kLanes) {
        const Vec upper = load(a + close + d) * rest + load(a + other + d) * quarter;
        const Vec lower = load(b + close + d) * rest + load(b + other + d) * quarter;
        store(out + to + d, (upper * rest + lower * quarter) + load(finer + to + d));
      }
    }
  });
}

}  // namespace
}  // namespace edgemtl
