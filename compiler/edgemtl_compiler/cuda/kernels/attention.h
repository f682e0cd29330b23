// Fused multi-head self-attention: the scores never leave registers.
//
// One block takes 16 queries of one head; its four warps share out the keys, each keeps a running maximum and
// sum (Milakov and Gimelshein, arXiv:1805.02867; Dao et al., NeurIPS 2022), and at the end they are joined.
#pragma once

#include "device.h"

namespace edgemtl {

constexpr int kQueries = 16, kKeys = 16, kAttentionWarps = 4;

// Shared memory in bytes: per warp the maxima, the sums, and the weighted values [16][size].
constexpr int attention_shared(int size) { return kAttentionWarps * kQueries * (2 + size) * 4; }

// qkv [batch * tokens, 3 * heads * size] (queries, keys, values; each head's values together) to out [batch *
// tokens, heads * size]. Grid: [ceil(tokens / 16), heads, batch].
template <class T, int kSize>
__device__ inline void attention(unsigned char* memory, const T* qkv, T* out, int tokens, int heads) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const int dim = heads * kSize, stride = 3 * dim, first = blockIdx.x * kQueries;
  const T* query = qkv + static_cast<size_t>(blockIdx.z) * tokens * stride + blockIdx.y * kSize;
  const T *key = query + dim, *value = key + dim;
  auto pair = [](const T* p) { return *reinterpret_cast<const Pair<T>*>(p); };
  const T zero = narrow<T>(0.0f);

  Pair<T> q[kSize / 16][4];
  for (int k = 0; k < kSize / 16; ++k)
    for (int i = 0; i < 4; ++i) {
      const int row =
          min(first + g + i % 2 * 8, tokens - 1);  // rows beyond the last are computed and dropped
      q[k][i] = pair(query + static_cast<size_t>(row) * stride + k * 16 + i / 2 * 8 + 2 * t);
    }
  const float octaves = 1.44269504088896341f / sqrtf(static_cast<float>(kSize));
  float high[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0}, sums[kSize / 8][4] = {};

  for (int from = warp * kKeys; from < tokens; from += kAttentionWarps * kKeys) {
    float s[2][4] = {};
#pragma unroll
    for (int k = 0; k < kSize / 16; ++k)
      for (int n = 0; n < 2; ++n) {
        const int row = from + 8 * n + g;
        const T* at = key + static_cast<size_t>(min(row, tokens - 1)) * stride + k * 16 + 2 * t;
        const Pair<T> b[2] = {pair(at), pair(at + 8)};
        mma(s[n], q[k], b);
      }
    Pair<T> p[4];
    for (int half = 0; half < 2; ++half) {  // the lane's rows g and g + 8
      float top = high[half];
      for (int n = 0; n < 2; ++n)
        for (int i = 0; i < 2; ++i) {
          float& v = s[n][2 * half + i];
          v = from + 8 * n + 2 * t + i < tokens ? v * octaves : -INFINITY;
          top = fmaxf(top, v);
        }
      top = fmaxf(top, __shfl_xor_sync(kAll, top, 1));
      top = fmaxf(top, __shfl_xor_sync(kAll, top, 2));
      const float shrink = exp2f(high[half] - top);
      high[half] = top;
      total[half] *= shrink;
      for (int n = 0; n < 2; ++n) {
        float* v = s[n] + 2 * half;
        v[0] = exp2f(v[0] - top);
        v[1] = exp2f(v[1] - top);
        total[half] += v[0] + v[1];
        p[2 * n + half] = pack(narrow<T>(v[0]), narrow<T>(v[1]));
      }
      for (int n = 0; n < kSize / 8; ++n) {
        sums[n][2 * half] *= shrink;
        sums[n][2 * half + 1] *= shrink;
      }
    }
#pragma unroll
    for (int n = 0; n < kSize / 8; ++n) {
      T v[4];
      for (int i = 0; i < 4; ++i) {
        const int row = from + i / 2 * 8 + 2 * t + i % 2;
        v[i] = row < tokens ? value[static_cast<size_t>(row) * stride + n * 8 + g] : zero;
      }
      const Pair<T> b[2] = {pack(v[0], v[1]), pack(v[2], v[3])};
      mma(sums[n], p, b);
    }
  }

  float* maxima = reinterpret_cast<float*>(memory);
  float* totals = maxima + kAttentionWarps * kQueries;
  float* parts = totals + kAttentionWarps * kQueries;
  for (int half = 0; half < 2; ++half) {
    const int row = warp * kQueries + g + 8 * half;
    total[half] += __shfl_xor_sync(kAll, total[half], 1);
    total[half] += __shfl_xor_sync(kAll, total[half], 2);
    if (t == 0) {
      maxima[row] = high[half];
      totals[row] = total[half];
    }
    for (int n = 0; n < kSize / 8; ++n)
      for (int i = 0; i < 2; ++i) parts[row * kSize + n * 8 + 2 * t + i] = sums[n][2 * half + i];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kQueries * kSize; i += blockDim.x) {
    const int row = i / kSize, column = i % kSize;
    if (first + row >= tokens) continue;
    float top = maxima[row];
    for (int w = 1; w < kAttentionWarps; ++w) top = fmaxf(top, maxima[w * kQueries + row]);
    float sum = 0, weight = 0;
    for (int w = 0; w < kAttentionWarps; ++w) {
      const int at = w * kQueries + row;
      const float share = exp2f(maxima[at] - top);
      sum += share * parts[at * kSize + column];
      weight += share * totals[at];
    }
    out[(static_cast<size_t>(blockIdx.z) * tokens + first + row) * dim + blockIdx.y * kSize + column] =
        narrow<T>(sum / weight);
  }
}

}  // namespace edgemtl
