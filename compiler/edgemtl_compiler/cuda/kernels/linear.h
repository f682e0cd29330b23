// The linear layer on tensor cores: 32 rows x 64 columns of the result per block of four warps.
//
// Where the rows come from (a source) and where the sums go (a sink) are template arguments, so that
// normalisation, gathering, GELU and the residual cost no launch and no pass over memory of their own.
// Weights are the bundle's panels of 16 columns (edgemtl/bundle/packing.py), read as they lie there.
#pragma once

#include "device.h"

namespace edgemtl {

constexpr int kRows = 32, kCols = 64, kDepth = 64;  // of the result per block, and of one step along the sum
constexpr int kPanel = 16, kPanels = kCols / kPanel;
constexpr int kThreads = 128;

// Values of type T in one 16-byte copy.
template <class T>
constexpr int kUnit = 16 / sizeof(T);
template <class T>
struct alignas(16) Unit {
  T value[kUnit<T>];
};

// From one row of a tile of A to the next: one unit more than its values, so that lanes hit different banks.
template <class T>
constexpr int kStride = kDepth + kUnit<T>;

// Shared memory of `linear`, in bytes from its start; the host asks for `kSize`.
template <class T>
struct LinearShared {
  static constexpr int kA = 2 * kRows * kStride<T> * sizeof(T), kB = 2 * kCols * kDepth * sizeof(T);
  static constexpr int kTable = kA + kB, kStats = kTable + 2 * kRows * 4, kSize = kStats + 2 * kRows * 4;
};

// What a source and a sink know of their block: which row of the source feeds row i (-1: none), and which row
// of the result it is.
struct Block {
  int* source;
  int* result;
  float* stats;  // [32][2], for the source's use
};

// Columns [first, first + depth) of the panel's rows become a tile of B, in the places that `weights` reads.
// Values of 16 bits are swizzled in units of 16 bytes, so that the eight rows of one matrix lie in different
// banks.
template <class T>
__device__ inline int place(int k, int unit) {
  constexpr int kUnits = kPanel / kUnit<T>;
  return (k * kUnits + (sizeof(T) == 2 ? unit ^ (k >> 2 & 1) : unit)) * kUnit<T>;
}

// Which unit a thread copies is settled by constants: at run time a division costs more than the copy.
template <class T>
__device__ inline void stage_weights(T* tile, const T* w, int panel, int panels, int total, int first,
                                     int depth) {
  constexpr int kUnits = kPanel / kUnit<T>;
#pragma unroll
  for (int p = 0; p < kPanels; ++p)
#pragma unroll
    for (int i = 0; i < kDepth * kUnits; i += kThreads) {
      const int k = (i + threadIdx.x) / kUnits, unit = threadIdx.x % kUnits;
      if (k < depth && panel + p < panels)
        copy16(tile + p * kDepth * kPanel + place<T>(k, unit),
               w + (static_cast<size_t>(panel + p) * total + first + k) * kPanel + unit * kUnit<T>);
    }
}

// The 16 x 16 part of a panel's tile from row k on, as two operands [16, 8].
template <class T>
__device__ inline void weights(Pair<T> (*b)[2], const T* tile, int k) {
  const int lane = threadIdx.x % kWarp, row = k + (lane >> 3 & 1) * 8 + lane % 8;
  uint32_t bits[4];
  load_transposed(bits, tile + place<T>(row, lane >> 4));
  for (int i = 0; i < 4; ++i) b[i / 2][i % 2].bits = bits[i];
}

__device__ inline void weights(Pair<float> (*b)[2], const float* tile, int k) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  for (int n = 0; n < 2; ++n)
    for (int half = 0; half < 2; ++half) {
      const float* at = tile + (k + 8 * half + 2 * t) * kPanel + 8 * n + g;
      b[n][half] = pack(at[0], at[kPanel]);
    }
}

// One unit of a tile of A; zeros where there is nothing to take it from.
template <class T>
__device__ inline void stage_unit(T* to, const T* from) {
  if (from)
    copy16(to, from);
  else
    for (int j = 0; j < kUnit<T>; ++j) to[j] = narrow<T>(0.0f);
}

// Rows of T, as many apart as they are deep; those that the table leaves out are zero.
template <class T>
struct Rows {
  const T* from;

  __device__ void begin(const Block&, int) {}
  __device__ void stage(T* tile, const Block& block, int total, int first, int depth) {
    constexpr int kUnits = kDepth / kUnit<T>;
    const int column = threadIdx.x % kUnits * kUnit<T>;
    if (column >= depth) return;
#pragma unroll
    for (int i = 0; i < kRows; i += kThreads / kUnits) {
      const int row = i + threadIdx.x / kUnits, source = block.source[row];
      stage_unit(tile + row * kStride<T> + column,
                 source >= 0 ? from + static_cast<size_t>(source) * total + first + column : nullptr);
    }
  }
};

// Float32 rows, normalised (LayerNorm): weight [dim] and bias [dim] one behind the other in `affine`.
template <class T>
struct Normed {
  const float* from;
  const float* affine;
  float eps;

  // A warp has eight rows, and fetches from all of them before it needs the first.
  static constexpr int kMine = kRows * kWarp / kThreads;

  __device__ const float* mine(const Block& block, int total, int j) const {
    return from + static_cast<size_t>(max(block.source[threadIdx.x / kWarp * kMine + j], 0)) * total;
  }
  __device__ void begin(const Block& block, int total) {
    const int lane = threadIdx.x % kWarp;
    const float* x[kMine];
    float mean[kMine] = {}, squares[kMine] = {};
#pragma unroll
    for (int j = 0; j < kMine; ++j) x[j] = mine(block, total, j);
    for (int i = lane; i < total; i += kWarp)
#pragma unroll
      for (int j = 0; j < kMine; ++j) mean[j] += x[j][i];
#pragma unroll
    for (int j = 0; j < kMine; ++j) mean[j] = warp_sum(mean[j]) / total;
    for (int i = lane; i < total; i += kWarp)
#pragma unroll
      for (int j = 0; j < kMine; ++j) squares[j] += (x[j][i] - mean[j]) * (x[j][i] - mean[j]);
#pragma unroll
    for (int j = 0; j < kMine; ++j) {
      const float scale = 1.0f / sqrtf(warp_sum(squares[j]) / total + eps);
      float* to = block.stats + 2 * (threadIdx.x / kWarp * kMine + j);
      if (lane == 0) to[0] = mean[j];
      if (lane == 0) to[1] = scale;
    }
    __syncwarp();
  }
  __device__ void stage(T* tile, const Block& block, int total, int first, int depth) {
    const int column = threadIdx.x % kWarp * 2, at = first + column;  // two columns of the warp's rows
    if (column >= depth) return;
    auto pair = [](const float* p) { return *reinterpret_cast<const Pair<float>*>(p); };
    const Pair<float> weight = pair(affine + at), bias = pair(affine + total + at);
    Pair<float> x[kMine];
#pragma unroll
    for (int j = 0; j < kMine; ++j) x[j] = pair(mine(block, total, j) + at);
#pragma unroll
    for (int j = 0; j < kMine; ++j) {
      const int row = threadIdx.x / kWarp * kMine + j;
      const bool some = block.source[row] >= 0;
      const float mean = block.stats[2 * row], scale = block.stats[2 * row + 1];
      const float left = (x[j].x - mean) * scale * weight.x + bias.x;
      const float right = (x[j].y - mean) * scale * weight.y + bias.y;
      *reinterpret_cast<Pair<T>*>(tile + row * kStride<T> + column) =
          pack(narrow<T>(some ? left : 0.0f), narrow<T>(some ? right : 0.0f));
    }
  }
};

// Patches of images [batch, 3, height, width]: row b * tokens + 1 + i is the i-th patch of image b, row b *
// tokens the class token's and zero.
template <class T>
struct Patches {
  const float* image;
  int height, width, patch;

  // Where the patch of a row begins, -1 for a row of zeros: found once, because it takes divisions.
  __device__ static int* place_of(const Block& block) { return reinterpret_cast<int*>(block.stats); }
  __device__ void begin(const Block& block, int) {
    const int cols = width / patch, tokens = height / patch * cols + 1;
    if (threadIdx.x < kRows) {
      const int source = block.source[threadIdx.x], number = source % tokens - 1;
      place_of(block)[threadIdx.x] =
          source < 0 || number < 0
              ? -1
              : (source / tokens * 3 * height + number / cols * patch) * width + number % cols * patch;
    }
    __syncthreads();
  }
  __device__ void stage(T* tile, const Block& block, int, int first, int depth) {
    const int column = threadIdx.x % kDepth, at = first + column;
    if (column >= depth) return;
    const int offset = (at / (patch * patch) * height + at / patch % patch) * width + at % patch;
    constexpr int kStep = kThreads / kDepth;
#pragma unroll
    for (int i = 0; i < kRows; i += kStep) {
      const int row = i + threadIdx.x / kDepth, begin = place_of(block)[row];
      const float v = image[max(begin, 0) + offset];
      tile[row * kStride<T> + column] = narrow<T>(begin < 0 ? 0.0f : v);
    }
  }
};

// The sums plus the bias, as T or float32.
template <class Out, bool kGelu>
struct Store {
  Out* out;
  int width;

  __device__ void operator()(int row, int column, float v, float bias) const {
    v += bias;
    out[static_cast<size_t>(row) * width + column] = narrow<Out>(kGelu ? gelu(v) : v);
  }
};

// out = residual + sums + bias.
struct Add {
  float* out;
  const float* residual;
  int width;

  __device__ void operator()(int row, int column, float v, float bias) const {
    const size_t at = static_cast<size_t>(row) * width + column;
    out[at] = residual[at] + v + bias;
  }
};

// out = (sums + bias) * score of the row.
struct Scale {
  float* out;
  const float* score;
  int width;

  __device__ void operator()(int row, int column, float v, float bias) const {
    out[static_cast<size_t>(row) * width + column] = (v + bias) * score[row];
  }
};

// Tokens: the sums of a patch, or the class token, plus the position embedding.
struct Embed {
  float* out;
  const float *cls, *position;
  int tokens, width;

  __device__ void operator()(int row, int column, float v, float bias) const {
    const int token = row % tokens;
    const float value = token ? v + bias : cls[column];
    out[static_cast<size_t>(row) * width + column] =
        value + position[static_cast<size_t>(token) * width + column];
  }
};

// The block's rows and columns [column, column + 64) of source * w + bias. w: panels [ceil(width /
// 16)][total][16], then the bias. total must be a multiple of 16.
template <class T, class Source, class Sink>
__device__ inline void linear(unsigned char* memory, const Block& block, Source source, const T* w, int total,
                              int width, int column, const Sink& sink) {
  T* a = reinterpret_cast<T*>(memory);
  T* b = reinterpret_cast<T*>(memory + LinearShared<T>::kA);
  const int panels = ceil_div(width, kPanel), panel = column / kPanel, steps = ceil_div(total, kDepth);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const int row = warp % 2 * 16, mine = warp / 2 * 2;  // of the block: the warp's 16 rows and two panels
  float sums[2][2][4] = {};

  auto stage = [&](int step) {  // the weights first: their way is the longest
    const int first = step * kDepth, depth = min(kDepth, total - first);
    stage_weights(b + step % 2 * kCols * kDepth, w, panel, panels, total, first, depth);
    if (step == 0) source.begin(block, total);
    source.stage(a + step % 2 * kRows * kStride<T>, block, total, first, depth);
    end_copies();
  };
  stage(0);
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) {
      stage(step + 1);
      wait_copies<1>();
    } else {
      wait_copies<0>();
    }
    __syncthreads();
    const T* rows = a + step % 2 * kRows * kStride<T> + row * kStride<T>;
    const T* tile = b + step % 2 * kCols * kDepth;
    const int depth = min(kDepth, total - step * kDepth);
    for (int k = 0; k < depth; k += 16) {
      Pair<T> x[4];
      for (int i = 0; i < 4; ++i)
        x[i] = *reinterpret_cast<const Pair<T>*>(rows + (g + i % 2 * 8) * kStride<T> + k + i / 2 * 8 + 2 * t);
#pragma unroll
      for (int p = 0; p < 2; ++p) {
        if (panel + mine + p >= panels) continue;  // the same for the whole warp
        Pair<T> y[2][2];
        weights(y, tile + (mine + p) * kDepth * kPanel, k);
        for (int n = 0; n < 2; ++n) mma(sums[p][n], x, y[n]);
      }
    }
    __syncthreads();
  }
  const T* bias = w + static_cast<size_t>(panels) * kPanel * total;
  for (int p = 0; p < 2; ++p)
    for (int n = 0; n < 2; ++n)
      for (int i = 0; i < 4; ++i) {
        const int to = block.result[row + g + i / 2 * 8];
        const int at = column + (mine + p) * kPanel + 8 * n + 2 * t + i % 2;
        if (to >= 0 && at < width) sink(to, at, sums[p][n][i], widen(bias[at]));
      }
}

// The tables of a block, in its shared memory.
template <class T>
__device__ inline Block block_of(unsigned char* memory) {
  int* table = reinterpret_cast<int*>(memory + LinearShared<T>::kTable);
  return {table, table + kRows, reinterpret_cast<float*>(memory + LinearShared<T>::kStats)};
}

// Block x of the grid takes the next 32 of `rows` rows, block y the next 64 columns. Of the source's rows the
// first `skip` of every `each + skip` are left out.
template <class T>
__device__ inline Block plain_block(unsigned char* memory, int rows, int each, int skip) {
  const Block block = block_of<T>(memory);
  if (threadIdx.x < kRows) {
    const int row = blockIdx.x * kRows + threadIdx.x;
    block.result[threadIdx.x] = row < rows ? row : -1;
    block.source[threadIdx.x] = row < rows ? row + (row / each + 1) * skip : -1;
  }
  __syncthreads();
  return block;
}

}  // namespace edgemtl
