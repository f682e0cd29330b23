// An emulation of a CUDA device on a CPU, for tests and for the compiler's check where there is no GPU; slow,
// and no statement about speed.
//
// Every thread of a block is a fiber. It runs until a barrier or an operation of its whole warp; there it
// waits until all the others have come. The order in which blocks, warps and lanes get their turn is a
// setting: a kernel that has a race gives other results in another order. Asynchronous copies arrive when
// they are waited for, not before; shared memory begins as not-a-number; a guard zone behind it must stay
// untouched.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <algorithm>
#include <functional>

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};
extern Dim3 threadIdx, blockIdx, blockDim, gridDim;  // of the fiber that runs now

namespace emulated {

struct Half {
  uint16_t bits;
};
struct Bfloat {
  uint16_t bits;
};
Half to_half(float v);
Bfloat to_bfloat(float v);
float to_float(Half v);
float to_float(Bfloat v);

// Runs a kernel over all blocks; 0, or what went wrong.
const char* launch(const std::function<void()>& kernel, Dim3 grid, int threads, size_t shared_bytes);
enum class Order { kForward, kBackward, kShuffled };
void set_order(Order order, uint64_t seed);

unsigned char* shared();

// Operations of a warp: every lane gives `bytes` of `value` and sees those of all 32 lanes. `kind` tells
// operations apart: lanes of one warp at different ones are an error.
constexpr int kRoom = 48;
const unsigned char (*exchange(int kind, const void* value, size_t bytes))[kRoom];
void block_barrier();

void copy16(void* to, const void* from);
void end_copies();
void wait_copies_left(int left);
template <int kLeft>
void wait_copies() {
  wait_copies_left(kLeft);
}
void mma_half(float* c, const uint32_t* a, const uint32_t* b);
void mma_bfloat(float* c, const uint32_t* a, const uint32_t* b);
void load_transposed(uint32_t* to, const void* row);

template <class T>
T shuffle(int kind, T value, int lane) {
  T out;
  memcpy(&out, exchange(kind, &value, sizeof value)[lane], sizeof out);
  return out;
}

}  // namespace emulated

using std::max;
using std::min;  // as nvcc has them without a name space

inline void __syncthreads() { emulated::block_barrier(); }
inline void __syncwarp() { emulated::exchange(1, "", 1); }
template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return emulated::shuffle(2, value, lane % 32);
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulated::shuffle(3, value, static_cast<int>(threadIdx.x % 32) ^ mask);
}
template <class T>
T __shfl_up_sync(unsigned, T value, int delta) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  return emulated::shuffle(4, value, lane >= delta ? lane - delta : lane);
}
inline float __half2float(emulated::Half v) { return emulated::to_float(v); }
inline emulated::Half __float2half_rn(float v) { return emulated::to_half(v); }
inline float __bfloat162float(emulated::Bfloat v) { return emulated::to_float(v); }
inline emulated::Bfloat __float2bfloat16_rn(float v) { return emulated::to_bfloat(v); }
// Never fused, even where the compiler likes to; hence the memory between.
inline float __fmul_rn(float a, float b) {
  volatile float out = a * b;
  return out;
}
inline float __fadd_rn(float a, float b) { return a + b; }
