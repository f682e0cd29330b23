// The machine's own limits, for the benchmark to hold results against: fused multiply-adds and dot products
// of bytes in registers, and reading memory once. Each function works on the thread that calls it; call it
// from several at once for several cores.
#include <algorithm>
#include <chrono>
#include <cstdint>

#include "simd.h"

namespace edgemtl {
namespace {

// Seconds of the fastest of many runs of `body`, over `seconds` in all.
template <class Body>
double fastest(double seconds, const Body& body) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  double best = 1e30;
  do {
    const auto start = Clock::now();
    body();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  } while (Clock::now() < end);
  return best;
}

// acc + products of bytes, four to a sum, by the instructions of dot_i8.h; kBytes to a register.
#if defined(__AVX512VNNI__)
constexpr int kBytes = 64;
using Bytes = __m512i;
inline Bytes dot(Bytes acc, Bytes x, Bytes y) { return _mm512_dpbusd_epi32(acc, x, y); }
#elif defined(__AVX2__)
constexpr int kBytes = 32;
using Bytes = __m256i;
inline Bytes dot(Bytes acc, Bytes x, Bytes y) {
#if defined(__AVXVNNI__)
  return _mm256_dpbusd_avx_epi32(acc, x, y);
#else
  return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(x, y), _mm256_set1_epi16(1)));
#endif
}
#elif defined(__ARM_FEATURE_DOTPROD)
constexpr int kBytes = 16;
using Bytes = int32x4_t;
inline Bytes dot(Bytes acc, Bytes x, Bytes y) {
  return vdotq_s32(acc, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(y));
}
#else
constexpr int kBytes = 0;  // no such instruction
#endif

}  // namespace
}  // namespace edgemtl

// GFLOP/s of independent fused multiply-adds whose operands never leave the registers: no program is faster.
extern "C" __attribute__((visibility("default"))) double edgemtl_roof_fma(double seconds) {
  using namespace edgemtl;
  constexpr int kChains = 12;  // latency times throughput on every machine here, within 16 registers
  constexpr int kSteps = 1 << 14;
  volatile float sink = 0;
  float one = sink + 1, half = sink + 0.5f;  // read from memory, so that nothing is computed when compiling
  const double best = fastest(seconds, [&] {
    const Vec x = splat(one), y = splat(half);
    Vec a[kChains];
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) a[i] = y * static_cast<float>(i);
    for (int step = 0; step < kSteps; ++step)
#pragma GCC unroll 12
      for (int i = 0; i < kChains; ++i) a[i] = a[i] * x + y;
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sink = sink + a[i][0];
  });
  return 2e-9 * kSteps * kChains * kLanes / best;
}

// GOP/s, two for a product and its sum, of independent dot products of bytes; 0 where no instruction makes
// them.
extern "C" __attribute__((visibility("default"))) double edgemtl_roof_dot([[maybe_unused]] double seconds) {
  using namespace edgemtl;
  if constexpr (kBytes == 0) {
    return 0;
  } else {
    constexpr int kChains = 12, kSteps = 1 << 14;
    volatile uint8_t sink = 0;
    uint8_t codes[2][kBytes];
    for (auto& row : codes)
      for (auto& code : row) code = sink + 1;
    const double best = fastest(seconds, [&] {
      Bytes x, y, a[kChains];
      std::memcpy(&x, codes[0], sizeof x);
      std::memcpy(&y, codes[1], sizeof y);
#pragma GCC unroll 12
      for (int i = 0; i < kChains; ++i)
        a[i] = Bytes{} + i;  // all different, or the compiler makes one chain of them
      for (int step = 0; step < kSteps; ++step)
#pragma GCC unroll 12
        for (int i = 0; i < kChains; ++i) a[i] = dot(a[i], x, y);
#pragma GCC unroll 12
      for (int i = 0; i < kChains; ++i) sink = sink + static_cast<uint8_t>(a[i][0]);
    });
    return 2e-9 * kSteps * kChains * kBytes / best;
  }
}

// GB/s of reading `count` floats once; count a multiple of 256.
extern "C" __attribute__((visibility("default"))) double edgemtl_roof_read(const float* values, int64_t count,
                                                                           double seconds) {
  using namespace edgemtl;
  volatile float sink = 0;
  const double best = fastest(seconds, [&] {
    Vec total[4] = {};
    for (int64_t i = 0; i < count; i += 4 * kLanes)
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) total[j] += load(values + i + j * kLanes);
    sink = sink + sum(total[0] + total[1] + total[2] + total[3]);
  });
  return 4e-9 * static_cast<double>(count) / best;
}
