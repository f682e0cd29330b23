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
#elif defined(__ARM_NEON)
#include <arm_neon.h>
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
#if defined(__ARM_NEON)
  return (Vec)vld1q_f32(p);  // GCC 12 takes a copy for one of two integers
#else
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
#endif
}

// A number stored in half precision (IEEE binary16). Arithmetic is always in float.
struct Half {
  uint16_t bits;
};

inline Vec load_half(const Half* p) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__) && defined(__F16C__)
  return (Vec)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(__ARM_NEON) && defined(__aarch64__)
  return (Vec)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)));
#else
  // Exponent and fraction moved to a float's places make a number 2^112 too small, exactly, subnormals
  // included.
  typedef uint16_t Narrow __attribute__((vector_size(kLanes * sizeof(uint16_t))));
  Narrow narrow;
  std::memcpy(&narrow, p, sizeof narrow);
  const IntVec wide = __builtin_convertvector(narrow, IntVec);
  const IntVec size = (wide & 0x7fff) << 13, sign = (wide & 0x8000) << 16;
  const IntVec finite = (IntVec)((Vec)size * 0x1p112f), other = size | 0x7f800000;
  return (Vec)((size >= 0x0f800000 ? other : finite) | sign);
#endif
}

inline Vec load(const Half* p) { return load_half(p); }

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

// 2^x to 2e-7 of its value for x up to 127; below -126 it is 2^-126. x = n + f, a minimax polynomial for 2^f,
// n added to the exponent.
inline Vec exp2(Vec x) {
  constexpr float kMagic = 12582912.0f;  // as above
  x = maximum(splat(-126.0f), x);
  const Vec shifted = x + kMagic;
  const Vec f = x - (shifted - kMagic);
  Vec p = f * 1.32764974e-3f + 9.67554180e-3f;
  p = p * f + 5.55071349e-2f;
  p = p * f + 2.40221197e-1f;
  p = p * f + 6.93146970e-1f;
  p = p * f + 1.00000007f;
  return (Vec)((IntVec)p + ((IntVec)shifted << 23));
}

// x * Phi(x), the exact GELU, |error| < 4e-7. The normal distribution's tail is 2^q, q minimax for an even
// error of the result: log2 of the tail is so smooth that a polynomial serves, and nothing is divided.
inline Vec gelu(Vec x) {
  const Vec u = minimum(splat(8.0f), maximum(-x, x));  // past 8 the tail times x is nothing
  Vec q = u * 3.30927786e-5f - 7.69219371e-4f;
  q = q * u + 8.08071540e-3f;
  q = q * u - 5.34121023e-2f;
  q = q * u - 4.58770975e-1f;
  q = q * u - 1.15120170f;
  q = q * u - 0.999993061f;
  return maximum(Vec{}, x) - u * exp2(q);
}

}  // namespace
}  // namespace edgemtl
