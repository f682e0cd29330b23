// What the kernels need of a GPU (compute capability 8.0 or newer), in few words: asynchronous copies into
// shared memory, matrix products of a warp, pairs of values.
//
// Compiled by nvcc these are PTX instructions (names as in the PTX ISA). Compiled by a C++ compiler
// (emulated.h) they are stand-ins that run on a CPU, so that the kernels' logic can be tested where there is
// no GPU.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>
#define EDGEMTL_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#else
#include "emulated.h"
#define EDGEMTL_SHARED(name) unsigned char* name = emulated::shared()
#endif

namespace edgemtl {

constexpr unsigned kAll = 0xffffffffu;  // every lane of a warp
constexpr int kWarp = 32;

#ifdef __CUDACC__
using Half = __half;
using Bfloat = __nv_bfloat16;

__device__ inline unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

// 16 bytes from global to shared memory, both on 16-byte boundaries; there after wait_copies.
__device__ inline void copy16(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from));
}

// Ends a group of copies.
__device__ inline void end_copies() { asm volatile("cp.async.commit_group;"); }

// Waits until all but the last `kLeft` groups of this thread have arrived.
template <int kLeft>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

// c [16, 8] += a [16, 16] b [16, 8], halves multiplied, float32 summed. With g = lane / 4 and t = lane % 4 a
// lane has of c: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1); of a pairs along the row at (g, 2t), (g
// + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8); of b pairs along the column at (2t, g), (2t + 8, g).
__device__ inline void mma_half(float* c, const uint32_t* a, const uint32_t* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same with bfloat16.
__device__ inline void mma_bfloat(float* c, const uint32_t* a, const uint32_t* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8 x 8 matrices of 16-bit values out of shared memory, transposed: lane i says where row i % 8 of
// matrix i / 8 lies (16 bytes), and gets of each matrix m the pair m[2t][g], m[2t + 1][g].
__device__ inline void load_transposed(uint32_t* to, const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}
#else
using emulated::Bfloat;
using emulated::copy16;
using emulated::end_copies;
using emulated::Half;
using emulated::load_transposed;
using emulated::mma_bfloat;
using emulated::mma_half;
using emulated::wait_copies;
#endif

// Two neighbouring values of type T, as the matrix products take them: of 16 bits each, or float32.
template <class T>
struct Pair {
  uint32_t bits;
};
template <>
struct alignas(8) Pair<float> {
  float x, y;
};

template <class T>
__device__ inline Pair<T> pack(T x, T y) {
  union {
    T value[2];
    Pair<T> pair;
  } u = {{x, y}};
  return u.pair;
}
template <>
__device__ inline Pair<float> pack(float x, float y) {
  return {x, y};
}

template <class T>
__device__ inline T narrow(float v);
template <>
__device__ inline Half narrow<Half>(float v) {
  return __float2half_rn(v);
}
template <>
__device__ inline Bfloat narrow<Bfloat>(float v) {
  return __float2bfloat16_rn(v);
}
template <>
__device__ inline float narrow<float>(float v) {
  return v;
}
__device__ inline float widen(Half v) { return __half2float(v); }
__device__ inline float widen(Bfloat v) { return __bfloat162float(v); }
__device__ inline float widen(float v) { return v; }

// c += a b for a warp, in the places that mma_half names.
__device__ inline void mma(float* c, const Pair<Half>* a, const Pair<Half>* b) {
  mma_half(c, &a->bits, &b->bits);
}
__device__ inline void mma(float* c, const Pair<Bfloat>* a, const Pair<Bfloat>* b) {
  mma_bfloat(c, &a->bits, &b->bits);
}

// The same in float32, a reference: each lane fetches the rows and columns it needs from its neighbours.
__device__ inline void mma(float* c, const Pair<float>* a, const Pair<float>* b) {
  const int lane = threadIdx.x % kWarp, g = lane / 4 * 4, t = lane % 4 * 8;
  auto from = [](const Pair<float>& p, int other) {
    return Pair<float>{__shfl_sync(kAll, p.x, other), __shfl_sync(kAll, p.y, other)};
  };
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      const Pair<float> top = from(a[2 * half], g + s), low = from(a[2 * half + 1], g + s);
      const Pair<float> left = from(b[half], t + s), right = from(b[half], t + 4 + s);
      c[0] += top.x * left.x + top.y * left.y;
      c[1] += top.x * right.x + top.y * right.y;
      c[2] += low.x * left.x + low.y * left.y;
      c[3] += low.x * right.x + low.y * right.y;
    }
}

__device__ inline float warp_sum(float v) {
  for (int step = kWarp / 2; step; step /= 2) v += __shfl_xor_sync(kAll, v, step);
  return v;
}

// What a LayerNorm needs; `scale` is one over the standard deviation.
struct Stats {
  float mean, scale;
};

// Of `count` values; every lane of the warp gets them.
__device__ inline Stats row_stats(const float* x, int count, float eps) {
  const int lane = threadIdx.x % kWarp;
  float sum = 0, squares = 0;
  for (int i = lane; i < count; i += kWarp) sum += x[i];
  const float mean = warp_sum(sum) / count;
  for (int i = lane; i < count; i += kWarp) squares += (x[i] - mean) * (x[i] - mean);
  return {mean, 1.0f / sqrtf(warp_sum(squares) / count + eps)};
}

__device__ inline float gelu(float v) { return 0.5f * v * (1.0f + erff(v * 0.70710678118654752f)); }

__device__ inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

}  // namespace edgemtl
