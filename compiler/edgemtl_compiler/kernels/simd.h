// Vectors of the machine's own width, and the few functions on them that the kernels need.
//
// GCC's and Clang's generic vectors, so that one source serves AVX-512 (16 lanes), AVX2 (8) and NEON (4);
// intrinsics appear only where a generic form would be slow. No function here depends on the order in which
// threads run.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace edgemtl {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kGroup = 4;  // panels that one micro-kernel covers: 6 x 64 floats fill 24 of 32 registers
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kGroup = 1;  // 6 x 16 floats fill 12 of 16 registers
#else
constexpr int kLanes = 4;
constexpr int kGroup = 1;  // 6 x 16 floats fill 24 of 32 registers
#endif
constexpr int kPanel = 16;                   // output channels of a weight panel, on every machine
constexpr int kPanelVecs = kPanel / kLanes;  // registers that hold one row of a panel
static_assert(kPanel % kLanes == 0, "a panel is a whole number of vectors");

typedef float Vec __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t IntVec __attribute__((vector_size(kLanes * sizeof(int32_t))));

inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }

inline Vec splat(float x) {
  return x - Vec{};
}  // minus zero: + would turn -0 into 0, so could not be left out

// The first n lanes (0 < n < kLanes) from memory, zero in the others; nothing past them is touched.
inline Vec load_part(const float* p, int n) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
  Vec v = {};
  std::memcpy(&v, p, n * sizeof(float));
  return v;
#endif
}

inline void store_part(float* p, Vec v, int n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#else
  std::memcpy(p, &v, n * sizeof(float));
#endif
}

// The larger and the smaller lanes; of a pair that has a NaN, b's. One instruction, which GCC does not find
// by itself; it is written with a mask of all lanes because GCC 12 warns about its own form without one.
inline Vec maximum(Vec a, Vec b) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

inline Vec minimum(Vec a, Vec b) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Vec)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return a < b ? a : b;
#endif
}

// Lanes combined in pairs, halves apart.
template <class Combine>
float fold(Vec v, const Combine& combine) {
  [[maybe_unused]] typedef float V8 __attribute__((vector_size(32)));
  typedef float V4 __attribute__((vector_size(16)));
#if defined(__AVX512F__)
  const V8 w = combine(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7),
                       __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
#else
  const auto w = v;
#endif
#if defined(__AVX2__)
  V4 x = combine(__builtin_shufflevector(w, w, 0, 1, 2, 3), __builtin_shufflevector(w, w, 4, 5, 6, 7));
#else
  V4 x = w;
#endif
  x = combine(x, __builtin_shufflevector(x, x, 2, 3, 0, 1));
  return combine(x, __builtin_shufflevector(x, x, 1, 0, 3, 2))[0];
}

inline float sum(Vec v) {
  return fold(v, [](auto a, auto b) { return a + b; });
}

inline float maximum(Vec v) {
  return fold(v, [](auto a, auto b) { return a > b ? a : b; });
}

// e^x within 2 units in the last place: x = n ln 2 + r, a polynomial for e^r (Cephes), n added to the
// exponent.
inline Vec exp(Vec x) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  x = minimum(splat(88.0f), maximum(splat(-80.0f), x));
  const Vec shifted = x * 1.44269504088896341f + kMagic;
  const Vec n = shifted - kMagic;
  const Vec r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + (r + 1.0f);
  return (Vec)((IntVec)p + ((IntVec)shifted << 23));
}

// x * Phi(x), the exact GELU: the normal distribution's tail by Abramowitz and Stegun 7.1.26, |error| < 1e-6.
inline Vec gelu(Vec x) {
  const Vec size = maximum(-x, x);
  const Vec t = 1.0f / (size * (0.3275911f * 0.70710678118654752f) + 1.0f);
  Vec p = t * 1.061405429f - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const Vec tail = p * t * 0.5f * exp(x * x * -0.5f);
  return x * (x < 0.0f ? tail : 1.0f - tail);
}

}  // namespace
}  // namespace edgemtl
