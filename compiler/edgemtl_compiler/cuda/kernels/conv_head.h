// M3ViT's decoder (Liang et al., NeurIPS 2022): 3x3 convolutions and ReLU, with bilinear doublings between.
//
// Maps are [batch, height, width, channels]. A convolution is a product of the pixels' neighbourhoods with
// the weights; the neighbourhoods never lie in memory, a block gathers its 32 tap by tap. A doubled map does:
// each of its values is read nine times by every 64 channels of the result.
#pragma once

#include "linear.h"

namespace edgemtl {

constexpr int kNormRows = 4;  // of a block of `normalise`, one to a warp

// LayerNorm of the patches of x [batch, 1 + patches, dim], whose first row is the class token's, as out
// [rows, dim] with rows = batch * patches.
template <class T>
__device__ inline void normalise(const float* x, const float* affine, T* out, int rows, int patches, int dim,
                                 float eps) {
  const int lane = threadIdx.x % kWarp, row = blockIdx.x * kNormRows + threadIdx.x / kWarp;
  if (row >= rows) return;  // a whole warp
  const float* from = x + static_cast<size_t>(row + row / patches + 1) * dim;
  const Stats stats = row_stats(from, dim, eps);
  for (int i = lane; i < dim; i += kWarp)
    out[static_cast<size_t>(row) * dim + i] =
        narrow<T>((from[i] - stats.mean) * stats.scale * affine[i] + affine[dim + i]);
}

// 3x3 neighbourhoods in maps [batch, height, width, dim]; what lies outside is zero. A row has nine taps of
// dim values, column of the neighbourhood by column, as the bundle packs a convolution.
template <class T>
struct Neighbours {
  const T* from;
  int height, width, dim;

  // The rows' pixels, y and x; a float holds either exactly.
  __device__ void begin(const Block& block, int) {
    if (threadIdx.x < kRows) {
      const int pixel = block.source[threadIdx.x] % (height * width);
      block.stats[2 * threadIdx.x] = static_cast<float>(pixel / width);
      block.stats[2 * threadIdx.x + 1] = static_cast<float>(pixel % width);
    }
    __syncthreads();
  }
  __device__ void stage(T* tile, const Block& block, int, int first, int depth) {
    constexpr int kUnits = kDepth / kUnit<T>;
    const int column = threadIdx.x % kUnits * kUnit<T>;
    if (column >= depth) return;
    const int tap = (first + column) / dim, down = tap % 3 - 1, right = tap / 3 - 1;
    const T* unit = from + (first + column) % dim;
#pragma unroll
    for (int i = 0; i < kRows; i += kThreads / kUnits) {
      const int row = i + threadIdx.x / kUnits, source = block.source[row];
      const int y = static_cast<int>(block.stats[2 * row]) + down;
      const int x = static_cast<int>(block.stats[2 * row + 1]) + right;
      const bool inside = source >= 0 && y >= 0 && y < height && x >= 0 && x < width;
      stage_unit(tile + row * kStride<T> + column,
                 inside ? unit + static_cast<size_t>(source + down * width + right) * dim : nullptr);
    }
  }
};

// ReLU of the sums plus the bias.
struct Relu {
  float* out;
  int width;

  __device__ void operator()(int row, int column, float v, float bias) const {
    v += bias;
    out[static_cast<size_t>(row) * width + column] = v < 0 ? 0 : v;
  }
};

// How one coordinate of a map of `size`, doubled by bilinear interpolation with pixel centres at halves, is
// made: three parts of `near` and one of `far`.
struct Doubled {
  int near, far;
  __device__ Doubled(int at, int size) : near(at / 2) {
    const int next = at % 2 ? near + 1 : near - 1;
    far = next < 0 ? 0 : min(next, size - 1);
  }
};

// x [batch, height, width, dim] doubled, [batch, 2 height, 2 width, dim]. A pixel of the result to a block:
// [4 height width, 1, batch].
template <class T>
__device__ inline void double_map(const float* x, T* out, int height, int width, int dim) {
  const Doubled v(blockIdx.x / (2 * width), height), h(blockIdx.x % (2 * width), width);
  const size_t image = static_cast<size_t>(blockIdx.z) * height * width;
  auto at = [&](int row, int column) { return x + (image + row * width + column) * dim; };
  const float *a = at(v.near, h.near), *b = at(v.near, h.far), *c = at(v.far, h.near), *d = at(v.far, h.far);
  T* to = out + (4 * image + blockIdx.x) * dim;
  for (int i = threadIdx.x; i < dim; i += blockDim.x) {
    const float close = 0.75f * a[i] + 0.25f * b[i], other = 0.75f * c[i] + 0.25f * d[i];
    to[i] = narrow<T>(0.75f * close + 0.25f * other);
  }
}

}  // namespace edgemtl
