// A camera's frame that lies on the GPU: bytes [height, width, 3] of any strides, resized and normalised into
// the network's input, planes of float32.
//
// The arithmetic is that of the CPU's path (edgemtl/media/preprocess.py), which leaves the resizing to
// OpenCV: the same weights, made on the host (edgemtl/runtime/cuda/prepare.py), summed in the same order and
// rounded in the same places, so that both give the same bytes.
#pragma once

#include "device.h"

namespace edgemtl {

enum Method {  // edgemtl/runtime/cuda/prepare.py: METHODS
  kLinear,     // two neighbours each way, weights of 11 bits, integers only
  kMean,       // of whole rectangles of pixels
  kArea,       // of rectangles with parts of pixels at their edges
};

// How one axis of `count` output pixels is made from `size` source pixels: output i from source pixels
// first[i], first[i] + 1, … (the border is repeated), with weights begin[i] to begin[i + 1] of a common list.
struct Taps {
  const int* first;
  const int* begin;
  const float* weight;
  int size;

  __device__ Taps(const int* table, int count, int size)
      : first(table),
        begin(table + count),
        weight(reinterpret_cast<const float*>(table + 2 * count + 1)),
        size(size) {}
  __device__ int many(int i) const { return begin[i + 1] - begin[i]; }
  __device__ int source(int i, int k) const {
    const int at = first[i] + k;
    return at < 0 ? 0 : at < size ? at : size - 1;
  }
};

// Where the bytes are: strides in bytes, of a row, a pixel and a channel.
struct Bytes {
  const uint8_t* at;
  int64_t down, right, next;

  __device__ int operator()(int y, int x, int channel) const {
    return at[y * down + x * right + channel * next];
  }
};

__device__ inline int to_byte(float v) {
  v = rintf(v);
  return v < 0 ? 0 : v > 255 ? 255 : static_cast<int>(v);
}

__device__ inline int linear_byte(const Bytes& from, const Taps& rows, const Taps& columns, int y, int x,
                                  int c) {
  int sum = 2;
  for (int j = 0; j < 2; ++j) {
    int across = 0;
    for (int i = 0; i < 2; ++i)
      across += from(rows.source(y, j), columns.source(x, i), c) *
                static_cast<int>(columns.weight[columns.begin[x] + i]);
    sum += (static_cast<int>(rows.weight[rows.begin[y] + j]) * (across >> 4)) >> 16;
  }
  return sum >> 2;
}

__device__ inline int mean_byte(const Bytes& from, const Taps& rows, const Taps& columns, int y, int x,
                                int c) {
  const int high = rows.many(y), wide = columns.many(x);
  int sum = 0;
  for (int j = 0; j < high; ++j)
    for (int i = 0; i < wide; ++i) sum += from(rows.source(y, j), columns.source(x, i), c);
  if (high == 2 && wide == 2) return (sum + 2) >> 2;  // halves go up here, to the even number elsewhere
  return to_byte(static_cast<float>(sum) * (1.0f / static_cast<float>(high * wide)));
}

// Nothing is fused: a fused multiplication and addition would round elsewhere than a CPU does.
__device__ inline int area_byte(const Bytes& from, const Taps& rows, const Taps& columns, int y, int x,
                                int c) {
  const float *down = rows.weight + rows.begin[y], *right = columns.weight + columns.begin[x];
  float sum = 0;
  for (int j = 0; j < rows.many(y); ++j) {
    float across = 0;
    for (int i = 0; i < columns.many(x); ++i) {
      const float value = static_cast<float>(from(rows.source(y, j), columns.source(x, i), c));
      across = __fadd_rn(across, __fmul_rn(value, right[i]));
    }
    sum = __fadd_rn(sum, __fmul_rn(down[j], across));
  }
  return to_byte(sum);
}

// out [3, height, width] of the network's input, a pixel to a thread. The frame fills high x wide pixels from
// (top, left) on, `fill` the rest. levels [3, 256]: what a byte becomes.
__device__ inline void prepare_pixel(const Bytes& from, const Taps& rows, const Taps& columns,
                                     const float* levels, float* out, int height, int width, int top,
                                     int left, int high, int wide, int method, int fill) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x, y = pixel / width - top, x = pixel % width - left;
  if (pixel >= height * width) return;
  for (int c = 0; c < 3; ++c) {
    int byte = fill;
    if (y >= 0 && y < high && x >= 0 && x < wide)
      byte = method == kLinear ? linear_byte(from, rows, columns, y, x, c)
             : method == kMean ? mean_byte(from, rows, columns, y, x, c)
                               : area_byte(from, rows, columns, y, x, c);
    out[c * height * width + pixel] = levels[c * 256 + byte];
  }
}

}  // namespace edgemtl
