// The light head's image steps, on maps whose pixels lie tile by tile.
//
// A token's projection is a tile of t x t pixels of `dim` channels. Laying tiles out as an image (the pixel
// shuffle) is never done: `Tiles` says where a pixel lies, and the last step writes the image in PyTorch's
// order.
#pragma once

#include "gemm.h"

namespace edgemtl {
namespace {

// A map of rows x cols tiles, each tile t x t pixels of dim channels, tiles and pixels in row order.
struct Tiles {
  int rows, cols, t, dim;
  int height() const { return rows * t; }
  int width() const { return cols * t; }
  ptrdiff_t line(int y) const { return (static_cast<ptrdiff_t>(y / t) * cols * t + y % t) * t * dim; }
  // Pixels from the start of a line to column x of it.
  int column(int x) const { return x / t * t * t + x % t; }
};

// The depthwise 3x3 step of line y: take(i, d, sums) gets the channels from d on of some pixels from the i-th
// on, each a vector. taps: [9][dim], then the bias. What lies outside the map counts as zero: there the pixel
// itself is read, with a zero tap.
template <class Take>
inline void depthwise_line(const float* x, const float* taps, int y, const int32_t* column, const Tiles& map,
                           const Take& take) {
  const int width = map.width(), dim = map.dim;
  const bool above = y > 0, below = y + 1 < map.height();
  const float* from[3] = {x + map.line(above ? y - 1 : y), x + map.line(y), x + map.line(below ? y + 1 : y)};
  for (int d = 0; d < dim; d += kLanes) {
    const Vec bias = load(taps + 9 * dim + d);
    auto run = [&](int begin, int end, bool left, bool right) {
      Vec tap[9];
      for (int i = 0; i < 9; ++i) {
        const bool inside =
            (i >= 3 || above) && (i < 6 || below) && (i % 3 > 0 || left) && (i % 3 < 2 || right);
        tap[i] = inside ? load(taps + i * dim + d) : Vec{};
      }
      auto some = [&](int first, auto& sums) {
        int i = first;
        for (Vec& sum : sums) {
          const ptrdiff_t at[3] = {static_cast<ptrdiff_t>(column[left ? i - 1 : i]) * dim + d,
                                   static_cast<ptrdiff_t>(column[i]) * dim + d,
                                   static_cast<ptrdiff_t>(column[right ? i + 1 : i]) * dim + d};
          sum = bias;
#pragma GCC unroll 9
          for (int j = 0; j < 9; ++j) sum += load(from[j / 3] + at[j % 3]) * tap[j];
          ++i;
        }
        take(first, d, sums);
      };
      Vec four[4], one[1];
      for (; begin + 4 <= end; begin += 4) some(begin, four);
      for (; begin < end; ++begin) some(begin, one);
    };
    run(0, 1, false, width > 1);
    run(1, width - 1, true, true);
    if (width > 1) run(width - 1, width, true, false);
  }
}

// out = x + pointwise(GELU(depthwise 3x3(x))), both as Tiles. taps: as above; mix: packed [dim, dim].
inline void separable_step(const float* x, const float* taps, Packed mix, float* out, const Tiles& map) {
  const int width = map.width(), dim = map.dim, workers = threads();
  const size_t line_size = Scratch::line(static_cast<size_t>(width) * dim);
  Scratch scratch(Scratch::line(width) + workers * line_size);
  int32_t* column = scratch.array<int32_t>(width);
  float* lines[kMaxThreads];
  for (int t = 0; t < workers; ++t) lines[t] = scratch.array(line_size);
  for (int i = 0; i < width; ++i) column[i] = map.column(i);

  parallel_for(workers, map.height(), [&](int y, int worker) {
    float* line = lines[worker];
    depthwise_line(x, taps, y, column, map, [=](int i, int d, const auto& sums) {
      for (const Vec& sum : sums) store(line + static_cast<ptrdiff_t>(i++) * dim + d, gelu(sum));
    });
    Product p;
    use_linear(p, mix, dim, dim);
    p.a = {line, dim};
    p.out = {out + map.line(y), dim, column};
    p.epilogue = Epilogue::kResidual;
    p.residual = {x + map.line(y), dim, column};
    block(p, 0, width, 0, panels_of(dim));
  });
}

// out [channels, height, width] = packed [channels, dim] times every pixel of x.
inline void to_map(const float* x, Packed packed, float* out, int channels, const Tiles& map) {
  const int width = map.width(), wide = panels_of(channels) * kPanel, workers = threads();
  const size_t line_size = Scratch::line(static_cast<size_t>(width) * wide);
  Scratch scratch(Scratch::line(width) + workers * line_size);
  int32_t* column = scratch.array<int32_t>(width);
  float* lines[kMaxThreads];
  for (int t = 0; t < workers; ++t) lines[t] = scratch.array(line_size);
  for (int i = 0; i < width; ++i) column[i] = map.column(i);

  parallel_for(workers, map.height(), [&](int y, int worker) {
    float* line = lines[worker];
    Product p;
    use_linear(p, packed, wide, map.dim);
    p.a = {x + map.line(y), map.dim, column};
    p.out = {line, wide};
    block(p, 0, width, 0, panels_of(wide));
    for (int c = 0; c < channels; ++c) {
      float* to = out + (static_cast<ptrdiff_t>(c) * map.height() + y) * width;
      for (int i = 0; i < width; ++i) to[i] = line[static_cast<ptrdiff_t>(i) * wide + c];
    }
  });
}

}  // namespace
}  // namespace edgemtl
