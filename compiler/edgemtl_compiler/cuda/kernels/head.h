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
};

// GELU of the depthwise 3x3 of x [.., dim]; what lies outside the map counts as zero. taps: nine times [dim],
// then the bias.
template <class T>
struct Depthwise {
  const float* from;
  const float* taps;
  Tiles map;

  // Of each row the tile and the place within it, down and across, 16 bits each: found once, because it takes
  // divisions.
  __device__ static int* places(const Block& block) { return reinterpret_cast<int*>(block.stats); }
  __device__ void begin(const Block& block, int) {
    if (threadIdx.x < kRows) {
      const int place = max(block.source[threadIdx.x], 0) % map.pixels(), tile = place / (map.t * map.t);
      int* to = places(block) + 2 * threadIdx.x;
      to[0] = tile / map.cols << 16 | place / map.t % map.t;
      to[1] = tile % map.cols << 16 | place % map.t;
    }
    __syncthreads();
  }
  // The tile of a neighbour along one axis, and its place within; the tile is outside where there is none.
  __device__ void step(int from, int by, int* tile, int* within) const {
    *tile = from >> 16;
    *within = (from & 0xffff) + by;
    if (*within < 0) {
      --*tile;
      *within = map.t - 1;
    } else if (*within == map.t) {
      ++*tile;
      *within = 0;
    }
  }
  __device__ void stage(T* tile, const Block& block, int dim, int first, int depth) {
    constexpr int kMine = kRows * kWarp / kThreads;  // rows of a warp
    const int warp = threadIdx.x / kWarp;
    for (int column = threadIdx.x % kWarp; column < depth; column += kWarp) {
      const int c = first + column;
      float tap[9];
#pragma unroll
      for (int j = 0; j < 9; ++j) tap[j] = taps[j * dim + c];
      const float bias = taps[9 * dim + c];
      for (int row = warp * kMine; row < (warp + 1) * kMine; ++row) {
        const int source = block.source[row], down = places(block)[2 * row],
                  across = places(block)[2 * row + 1];
        const int t = map.t, here = (((down >> 16) * map.cols + (across >> 16)) * t + (down & 0xffff)) * t;
        const float* image = from + static_cast<size_t>(max(source, 0) - here - (across & 0xffff)) * dim + c;
        float value[9];
#pragma unroll
        for (int j = 0; j < 9; ++j) {
          int v, y, u, x;
          step(down, j / 3 - 1, &v, &y);
          step(across, j % 3 - 1, &u, &x);
          const bool inside = v >= 0 && v < map.rows && u >= 0 && u < map.cols;
          const int place = inside ? ((v * map.cols + u) * t + y) * t + x : 0;
          value[j] = image[static_cast<size_t>(place) * dim];
          value[j] = inside ? value[j] : 0.0f;
        }
        float sum = bias;
#pragma unroll
        for (int j = 0; j < 9; ++j) sum += value[j] * tap[j];
        tile[row * kStride<T> + column] = narrow<T>(source < 0 ? 0.0f : gelu(sum));
      }
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
  for (int d = 0; d < dim; d += kUnit<float>) {  // 16 bytes at a time
    const auto v = *reinterpret_cast<const Unit<float>*>(from + d);
#pragma unroll
    for (int i = 0; i < kUnit<float> * kPanel; i += kUnit<T>) {
      const auto some = *reinterpret_cast<const Unit<T>*>(weight + d * kPanel + i);
#pragma unroll
      for (int j = 0; j < kUnit<T>; ++j) sums[(i + j) % kPanel] += v.value[i / kPanel] * widen(some.value[j]);
    }
  }
  for (int c = 0; c < kPanel; ++c)
    if (panel * kPanel + c < channels)
      out[(static_cast<size_t>(blockIdx.z) * channels + panel * kPanel + c) * map.pixels() + pixel] = sums[c];
}

}  // namespace edgemtl
