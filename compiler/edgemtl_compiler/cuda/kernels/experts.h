// Task-gated sparse experts (M3ViT, Liang et al., NeurIPS 2022) without the host: the gate's choice, the
// queues of tokens, and what each kernel needs to find its part of them.
//
// The number of launches and the size of each never depend on the routing: a grid has blocks for the worst
// case, and those without tokens end at once. No capacity, no padding, no token dropped. Ties of the gate go
// to the lower index; sums into a token run in ascending expert order.
#pragma once

#include "linear.h"

namespace edgemtl {

constexpr int kRouteTokens = 4;  // of a block of `route`, one to a warp
constexpr int kDispatchThreads = 256;

// Shared memory in bytes, per block: each warp's normalised token, its logits, and which experts it has
// taken.
constexpr int route_shared(int dim, int path) { return kRouteTokens * (dim + 2 * path) * 4; }

// LayerNorm of each row of x [rows, dim], written as `normed`; logits of the experts `path` [paths] under the
// packed gate (float32 panels of `held` columns, then a bias, which is zero where the model has none); index
// [rows, k] gets positions in the path by falling logit, score [rows, k] their softmax over the path, if
// asked divided by their sum. A token to a warp.
template <class T>
__device__ inline void route(unsigned char* memory, const float* x, const float* affine, const float* gate,
                             const int* path, T* normed, int* index, float* score, int rows, int dim,
                             int held, int paths, int k, int renormalise, float eps) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int row = blockIdx.x * kRouteTokens + warp;
  if (row >= rows) return;  // a whole warp
  float* token = reinterpret_cast<float*>(memory) + warp * (dim + 2 * paths);
  float* logit = token + dim;
  int* taken = reinterpret_cast<int*>(logit + paths);
  const float* from = x + static_cast<size_t>(row) * dim;

  const Stats stats = row_stats(from, dim, eps);
  for (int i = lane; i < dim; i += kWarp) {
    token[i] = (from[i] - stats.mean) * stats.scale * affine[i] + affine[dim + i];
    normed[static_cast<size_t>(row) * dim + i] = narrow<T>(token[i]);
  }
  __syncwarp();

  const float* bias = gate + static_cast<size_t>(ceil_div(held, kPanel)) * kPanel * dim;
  float high = -INFINITY;
  for (int e = 0; e < paths; ++e) {
    const float* column = gate + static_cast<size_t>(path[e] / kPanel) * dim * kPanel + path[e] % kPanel;
    float part = 0;
    for (int i = lane; i < dim; i += kWarp) part += token[i] * column[static_cast<size_t>(i) * kPanel];
    part = warp_sum(part) + bias[path[e]];
    high = fmaxf(high, part);
    if (lane == 0) {
      logit[e] = part;
      taken[e] = 0;
    }
  }
  __syncwarp();
  float all = 0;
  for (int e = lane; e < paths; e += kWarp) all += expf(logit[e] - high);
  all = warp_sum(all);

  float chosen = 0;
  for (int j = 0; j < k; ++j) {
    int best = -1;
    for (int e = lane; e < paths; e += kWarp)
      if (!taken[e] && (best < 0 || logit[e] > logit[best])) best = e;
    for (int step = kWarp / 2; step; step /= 2) {
      const int other = __shfl_xor_sync(kAll, best, step);
      if (other < 0) continue;
      if (best < 0 || logit[other] > logit[best] || (!(logit[best] > logit[other]) && other < best))
        best = other;
    }
    best = __shfl_sync(kAll, best, 0);
    const float weight = expf(logit[best] - high) / all;
    chosen += weight;
    __syncwarp();
    if (lane == 0) {
      taken[best] = 1;
      index[static_cast<size_t>(row) * k + j] = best;
      score[static_cast<size_t>(row) * k + j] = weight;
    }
    __syncwarp();
  }
  if (renormalise && lane == 0)
    for (int j = 0; j < k; ++j) score[static_cast<size_t>(row) * k + j] /= chosen;
}

// Queues of the `pairs` choices in `index`: expert e's are order[start[e]] .. order[start[e + 1] - 1],
// ascending. A counting sort; block e makes the queue of expert e.
__device__ inline void make_queue(unsigned char* memory, const int* index, int* start, int* order,
                                  int pairs) {
  int* below = reinterpret_cast<int*>(memory);  // [warps] choices of lower experts
  int* equal = below + kDispatchThreads / kWarp;
  const int e = blockIdx.x, thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp;
  const int each = ceil_div(pairs, kDispatchThreads);
  const int first = min(pairs, thread * each), last = min(pairs, first + each);
  int lower = 0, mine = 0;
  for (int i = first; i < last; ++i) {
    lower += index[i] < e;
    mine += index[i] == e;
  }
  int upto = mine;  // of this warp's threads up to this one
  for (int step = 1; step < kWarp; step *= 2) {
    const int other = __shfl_up_sync(kAll, upto, step);
    if (lane >= step) upto += other;
  }
  for (int step = kWarp / 2; step; step /= 2) lower += __shfl_xor_sync(kAll, lower, step);
  if (lane == kWarp - 1) {
    below[warp] = lower;
    equal[warp] = upto;
  }
  __syncthreads();
  int begin = 0, end = 0, before = 0;
  for (int w = 0; w < kDispatchThreads / kWarp; ++w) {
    begin += below[w];
    end += equal[w];
    if (w < warp) before += equal[w];
  }
  if (thread == 0) {
    start[e] = begin;
    if (e == static_cast<int>(gridDim.x) - 1) start[e + 1] = begin + end;
  }
  int at = begin + before + upto - mine;
  for (int i = first; i < last; ++i)
    if (index[i] == e) order[at++] = i;
}

// Which expert's queue block x works on, and its rows: sources and results for the two products. False for a
// block that the routing leaves without work. Results of the first product, and sources of the second, are
// places in the order of the queues; k choices belong to one token.
__device__ inline bool queue_block(const Block& block, const int* start, const int* order, int experts, int k,
                                   bool second, int* expert) {
  int tile = blockIdx.x, e = 0;
  for (; e < experts; ++e) {
    const int tiles = ceil_div(start[e + 1] - start[e], kRows);
    if (tile < tiles) break;
    tile -= tiles;
  }
  if (e == experts) return false;
  if (threadIdx.x < kRows) {
    const int at = start[e] + tile * kRows + threadIdx.x;
    const bool inside = at < start[e + 1];
    const int pair = inside ? order[at] : -1;
    block.source[threadIdx.x] = !inside ? -1 : second ? at : pair / k;
    block.result[threadIdx.x] = !inside ? -1 : second ? pair : at;
  }
  __syncthreads();
  *expert = e;
  return true;
}

// out [rows, dim] = residual + each token's k parts [rows * k, dim], in ascending expert order. A token to a
// block.
__device__ inline void sum_parts(const float* parts, const int* index, const float* residual, float* out,
                                 int dim, int k) {
  const size_t row = blockIdx.x;
  for (int d = threadIdx.x; d < dim; d += blockDim.x) {
    float sum = residual[row * dim + d];
    for (int step = 0, last = -1; step < k; ++step) {
      int next = 0x7fffffff, slot = 0;
      for (int j = 0; j < k; ++j) {
        const int e = index[row * k + j];
        if (e > last && e < next) {
          next = e;
          slot = j;
        }
      }
      sum += parts[(row * k + slot) * dim + d];
      last = next;
    }
    out[row * dim + d] = sum;
  }
}

}  // namespace edgemtl
