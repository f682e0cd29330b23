// Sums of products of INT8 codes on AVX2 and AVX-512 without VNNI, whose multiplier takes numbers of 16 bits.
//
// Winograd's inner product (1968) needs half of the multiplications:
//   (a0 + w2) (a2 + w0) = a0 w0 + a2 w2 + a0 a2 + w0 w2.
// What a row makes alone lies behind its codes, what a column makes alone behind its panel, and both are
// taken off before the first step. Of the four instructions that make 32 products three are additions, which
// run on more ports than multiplications on every machine. Exact: a factor is at most 254, so a sum stays
// below 2^31 up to 66,000 channels.
#pragma once

#include "simd.h"

namespace edgemtl {
namespace {

using Code = int16_t;
using Weight = int16_t;  // of a panel [steps][2][16][2]: channels 0 and 1 of a step, then 2 and 3
constexpr int kCodeOffset = 0;
// 8 or 12 sums, 4 weights, 2 inputs and 2 factors: as many as there are registers.
constexpr int kDotRows = kLanes == 8 ? 4 : 6, kDotGroup = kLanes == 8 ? 1 : 2;

inline int row_codes(int steps) { return 4 * steps + 4; }  // a whole number of steps
inline ptrdiff_t panel_weights(int steps) { return static_cast<ptrdiff_t>(steps) * kStep + 2 * kPanel; }

typedef int16_t Pairs __attribute__((vector_size(kLanes * sizeof(int32_t))));

inline Pairs load_pairs(const int16_t* from) {
  Pairs v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

inline IntVec multiply_pairs(Pairs a, Pairs b) {
#if defined(__AVX512F__)
  return (IntVec)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#else
  return (IntVec)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#endif
}

inline int32_t word(const int16_t* from) {
  int32_t v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <int M, int P>
void dot_tile(const Code* const* a, const Weight* b, const int32_t*, int steps, int32_t* sums) {
  constexpr int V = P * kPanelVecs;
  const ptrdiff_t panel = panel_weights(steps);
  auto weights = [&](int j) { return b + j / kPanelVecs * panel + j % kPanelVecs * 2 * kLanes; };
  IntVec acc[M][V];
#pragma GCC unroll 8
  for (int j = 0; j < V; ++j) {
    const IntVec less = (IntVec)load_pairs(weights(j) + panel - 2 * kPanel);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) acc[i][j] = -word(a[i] + 4 * steps) - less;
  }
#pragma GCC unroll 2
  for (int k = 0; k < steps; ++k, b += kStep) {
    Pairs first[V], second[V];
#pragma GCC unroll 8
    for (int j = 0; j < V; ++j) {
      first[j] = load_pairs(weights(j));
      second[j] = load_pairs(weights(j) + kStep / 2);
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      const Pairs x = (Pairs)(word(a[i] + 4 * k) - IntVec{}), y = (Pairs)(word(a[i] + 4 * k + 2) - IntVec{});
#pragma GCC unroll 8
      for (int j = 0; j < V; ++j) acc[i][j] += multiply_pairs(x + second[j], y + first[j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < V; ++j) std::memcpy(sums + (i * V + j) * kLanes, &acc[i][j], sizeof acc[i][j]);
}

// Writes a row's own products behind its codes.
inline void close_row(Code* row, int steps) {
  __m256i twice = _mm256_setzero_si256();  // every product comes in two lanes
  int k = 0;
  auto add = [&](__m256i codes) {
    twice = _mm256_add_epi32(twice, _mm256_madd_epi16(codes, _mm256_shuffle_epi32(codes, 0xb1)));
  };
  for (; k + 4 <= steps; k += 4) add(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 4 * k)));
  for (; k < steps; ++k)
    add(_mm256_zextsi128_si256(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + 4 * k))));
  __m128i half = _mm_add_epi32(_mm256_castsi256_si128(twice), _mm256_extracti128_si256(twice, 1));
  half = _mm_add_epi32(half, _mm_srli_si128(half, 8));
  const int32_t own = _mm_cvtsi128_si32(half);
  std::memcpy(row + 4 * steps, &own, sizeof own);
}

// Writes the columns' own products behind a panel.
inline void close_panel(Weight* panel, int steps) {
  IntVec own[kPanelVecs] = {};
  for (int k = 0; k < steps; ++k, panel += kStep)
#pragma GCC unroll 2
    for (int j = 0; j < kPanelVecs; ++j)
      own[j] +=
          multiply_pairs(load_pairs(panel + 2 * kLanes * j), load_pairs(panel + 2 * kLanes * j + kStep / 2));
  std::memcpy(panel, own, sizeof own);
}

// Stored panels [steps][16][4] as dot_tile reads them, laid in `room`.
inline const Weight* open_panels(const int8_t* stored, int count, int steps, Weight* room) {
  const __m256i pairs =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
  for (int i = 0; i < count; ++i) {
    Weight* panel = room + i * panel_weights(steps);
    for (int k = 0; k < steps; ++k, stored += kStep)
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        __m256i eight = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(stored) + j);
        eight = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(eight, pairs), 0xd8);
        __m256i* to = reinterpret_cast<__m256i*>(panel + k * kStep) + j;
        _mm256_storeu_si256(to, _mm256_cvtepi8_epi16(_mm256_castsi256_si128(eight)));
        _mm256_storeu_si256(to + 2, _mm256_cvtepi8_epi16(_mm256_extracti128_si256(eight, 1)));
      }
    close_panel(panel, steps);
  }
  return room;
}

}  // namespace
}  // namespace edgemtl
