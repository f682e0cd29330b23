// Sums of products of INT8 codes, tile by tile: one form per instruction set, all with the same INT32
// results.
//
// A step takes four input channels of every row against 16 x 4 weights; codes and weights lie in -127..127.
// Machines that multiply bytes do so here: 4 bytes of every row against 64 of weights. Instructions whose
// first operand has no sign (VNNI) get the input's codes plus 128, and 128 times the weights' sum is taken
// off at the start; the others get codes with their sign. No intermediate can saturate: a pair of products is
// at most 2 * 127 * 127 < 2^15. The others do as dot_winograd.h says.
#pragma once

#include "simd.h"

#if defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace edgemtl {
namespace {

constexpr int kStep = 4 * kPanel;  // weights of a step: four input channels of a panel

}  // namespace
}  // namespace edgemtl

// What every form has: the types of a row's codes and of a panel's weights, how many a row and a panel take,
// and
// - dot_tile<M, P>: sums [M][P * 16] = rows a[0 .. M) times panels b, b + panel_weights, ...; `less` [P * 16]
//   is 128 times the sum of each column's weights. kDotRows and kDotGroup are the largest M and P there are;
// - close_row and close_panel, to be called once all codes are there; and open_panels, for stored weights.
#if defined(__AVX2__) && !defined(__AVX512VNNI__) && !defined(__AVXVNNI__)
#include "dot_winograd.h"
#else
namespace edgemtl {
namespace {

using Code = uint8_t;
using Weight = int8_t;  // of a panel [steps][16][4], as it is stored

inline int row_codes(int steps) { return 4 * steps; }
inline ptrdiff_t panel_weights(int steps) { return static_cast<ptrdiff_t>(steps) * kStep; }
inline void close_row(Code*, int) {}
inline void close_panel(Weight*, int) {}
inline const Weight* open_panels(const int8_t* stored, int, int, Weight*) { return stored; }

inline int32_t four(const Code* codes) {
  int32_t v;
  std::memcpy(&v, codes, sizeof v);
  return v;
}

#if defined(__AVX512VNNI__)
constexpr int kCodeOffset = 128, kDotRows = 6, kDotGroup = 4;

template <int M, int P>
void dot_tile(const Code* const* a, const Weight* b, const int32_t* less, int steps, int32_t* sums) {
  const ptrdiff_t panel_step = panel_weights(steps);
  __m512i acc[M][P];
#pragma GCC unroll 16
  for (int j = 0; j < P; ++j) {
    const __m512i start = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_loadu_si512(less + j * kPanel));
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) acc[i][j] = start;
  }
  for (int k = 0; k < steps; ++k, b += kStep) {
    __m512i column[P];
#pragma GCC unroll 16
    for (int j = 0; j < P; ++j) column[j] = _mm512_loadu_si512(b + j * panel_step);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const __m512i value = _mm512_set1_epi32(four(a[i] + 4 * k));
#pragma GCC unroll 16
      for (int j = 0; j < P; ++j) acc[i][j] = _mm512_dpbusd_epi32(acc[i][j], value, column[j]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < P; ++j) _mm512_storeu_si512(sums + (i * P + j) * kPanel, acc[i][j]);
}
#elif defined(__AVXVNNI__)
constexpr int kCodeOffset = 128, kDotRows = 6, kDotGroup = 1;

template <int M, int P>
void dot_tile(const Code* const* a, const Weight* b, const int32_t* less, int steps, int32_t* sums) {
  static_assert(P == 1, "one panel fills the registers");
  __m256i acc[M][2];
#pragma GCC unroll 2
  for (int j = 0; j < 2; ++j) {
    const __m256i start = _mm256_sub_epi32(_mm256_setzero_si256(),
                                           _mm256_loadu_si256(reinterpret_cast<const __m256i*>(less) + j));
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) acc[i][j] = start;
  }
  for (int k = 0; k < steps; ++k, b += kStep) {
    const __m256i* from = reinterpret_cast<const __m256i*>(b);
    const __m256i column[2] = {_mm256_loadu_si256(from), _mm256_loadu_si256(from + 1)};
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      const __m256i value = _mm256_set1_epi32(four(a[i] + 4 * k));
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) acc[i][j] = _mm256_dpbusd_avx_epi32(acc[i][j], value, column[j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + i * kPanel) + j, acc[i][j]);
}
#elif defined(__ARM_NEON) && defined(__aarch64__)
constexpr int kCodeOffset = 0, kDotGroup = 1;
#if defined(__ARM_FEATURE_DOTPROD)
constexpr int kDotRows = 6;

template <int M, int P>
void dot_tile(const Code* const* a, const Weight* b, const int32_t*, int steps, int32_t* sums) {
  static_assert(P == 1, "one panel fills the registers");
  int32x4_t acc[M][4];
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < 4; ++j) acc[i][j] = vdupq_n_s32(0);
  for (int k = 0; k < steps; ++k, b += kStep) {
    const int8x16_t column[4] = {vld1q_s8(b), vld1q_s8(b + 16), vld1q_s8(b + 32), vld1q_s8(b + 48)};
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      const int8x16_t value = vreinterpretq_s8_s32(vdupq_n_s32(four(a[i] + 4 * k)));
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) acc[i][j] = vdotq_s32(acc[i][j], column[j], value);
    }
  }
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < 4; ++j) vst1q_s32(sums + i * kPanel + 4 * j, acc[i][j]);
}
#else
constexpr int kDotRows = 2;

// Two steps' products fit one INT16 together; pairs of them are then added to INT32 sums, two per column.
template <int M, int P>
void dot_tile(const Code* const* a, const Weight* b, const int32_t*, int steps, int32_t* sums) {
  static_assert(P == 1, "one panel fills the registers");
  int32x4_t acc[M][8];
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < 8; ++j) acc[i][j] = vdupq_n_s32(0);
  for (int k = 0; k < steps; k += 2, b += 2 * kStep) {
    const bool two = k + 1 < steps;
    int8x8_t value[M], next[M];
    for (int i = 0; i < M; ++i) {
      value[i] = vreinterpret_s8_s32(vdup_n_s32(four(a[i] + 4 * k)));
      next[i] = vreinterpret_s8_s32(vdup_n_s32(two ? four(a[i] + 4 * k + 4) : 0));
    }
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const int8x8_t first = vld1_s8(b + 8 * j), second = vld1_s8(b + 8 * j + (two ? kStep : 0));
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i)
        acc[i][j] = vpadalq_s16(acc[i][j], vmlal_s8(vmull_s8(first, value[i]), second, next[i]));
    }
  }
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < 4; ++j)
      vst1q_s32(sums + i * kPanel + 4 * j, vpaddq_s32(acc[i][2 * j], acc[i][2 * j + 1]));
}
#endif
#else
constexpr int kCodeOffset = 0, kDotRows = 4, kDotGroup = 1;

template <int M, int P>
void dot_tile(const Code* const* a, const Weight* b, const int32_t*, int steps, int32_t* sums) {
  static_assert(P == 1, "as the other forms");
  std::memset(sums, 0, M * kPanel * sizeof *sums);
  for (int k = 0; k < steps; ++k, b += kStep)
    for (int i = 0; i < M; ++i)
      for (int n = 0; n < kPanel; ++n)
        for (int c = 0; c < 4; ++c)
          sums[i * kPanel + n] += static_cast<int8_t>(a[i][4 * k + c]) * b[4 * n + c];
}
#endif

}  // namespace
}  // namespace edgemtl
#endif

namespace edgemtl {
namespace {

// dot_tile of `rows` out of 1 .. M rows by `panels` out of 1 .. P panels.
template <int M = kDotRows, int P = kDotGroup>
void dot_tile_of(int rows, int panels, const Code* const* a, const Weight* b, const int32_t* less, int steps,
                 int32_t* sums) {
  if constexpr (M > 1)
    if (rows < M) return dot_tile_of<M - 1, P>(rows, panels, a, b, less, steps, sums);
  if constexpr (P > 1)
    if (panels < P) return dot_tile_of<M, P - 1>(rows, panels, a, b, less, steps, sums);
  dot_tile<M, P>(a, b, less, steps, sums);
}

}  // namespace
}  // namespace edgemtl
