// The light head's image steps, on maps whose pixels lie tile by tile, as the projection of the tokens leaves
// them.
#pragma once

#include "linear.h"

namespace edgemtl {

// A map of rows x cols tiles of t x t pixels; tiles and pixels in row order, images one behind the other.
struct Tiles {
  int rows, cols, t;

  __device__ int height() const { return rows * t; }
  __device__ int width() const { return cols * t; }
  __device__ int pixels() const { return height() * width(); }
  // The place of pixel (y, x) in its image.
  __device__ int place(int y, int x) const { return ((y / t * cols + x / t) * t + y % t) * t + x % t; }
  __device__ void pixel(int place, int* y, int* x) const {
    const int tile = place / (t * t);
    *y = tile / cols * t + place / t % t;
    *x = tile % cols * t + place % t;
  }
};

// GELU of the depthwise 3x3 of x [.., dim]; what lies outside the map counts as zero. taps: nine times [dim],
// then the bias.
template <class T>
struct Depthwise {
  const float* from;
  const float* taps;
  Tiles map;

  __device__ void begin(const Block&, int) {}
  __device__ void stage(T* tile, const Block& block, int dim, int first, int depth) {
    for (int i = threadIdx.x; i < kRows * depth; i += kThreads) {
      const int row = i / depth, c = first + i % depth, source = block.source[row];
      float sum = 0;
      if (source >= 0) {
        const int image = source / map.pixels() * map.pixels();
        int y, x;
        map.pixel(source - image, &y, &x);
        sum = taps[9 * dim + c];
        for (int j = 0; j < 9; ++j) {
          const int v = y + j / 3 - 1, u = x + j % 3 - 1;
          if (v >= 0 && v < map.height() && u >= 0 && u < map.width())
            sum += from[static_cast<size_t>(image + map.place(v, u)) * dim + c] * taps[j * dim + c];
        }
        sum = gelu(sum);
      }
      tile[row * kStride<T> + i % depth] = narrow<T>(sum);
    }
  }
};

// out [batch, channels, height, width] = packed [channels, dim] times every pixel of x, plus the bias. Grid:
// [ceil(pixels / 128), ceil(channels / 16), batch]; a pixel and 16 channels to a thread.
template <class T>
__device__ inline void write_map(const float* x, const T* w, float* out, int channels, int dim, Tiles map) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x, panel = blockIdx.y;
  if (pixel >= map.pixels()) return;
  const int place = map.place(pixel / map.width(), pixel % map.width());
  const float* from = x + (static_cast<size_t>(blockIdx.z) * map.pixels() + place) * dim;
  const T* weight = w + static_cast<size_t>(panel) * dim * kPanel;
  const T* bias = w + static_cast<size_t>(gridDim.y) * dim * kPanel + panel * kPanel;
  float sums[kPanel];
  for (int c = 0; c < kPanel; ++c) sums[c] = widen(bias[c]);
  for (int d = 0; d < dim; ++d) {
    const float v = from[d];
    for (int c = 0; c < kPanel; ++c) sums[c] += v * widen(weight[d * kPanel + c]);
  }
  for (int c = 0; c < kPanel; ++c)
    if (panel * kPanel + c < channels)
      out[(static_cast<size_t>(blockIdx.z) * channels + panel * kPanel + c) * map.pixels() + pixel] = sums[c];
}

}  // namespace edgemtl
