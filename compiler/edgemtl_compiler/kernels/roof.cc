// The machine's own limits, for the benchmark to hold results against: fused multiply-adds in registers, and
// reading memory once. Each function works on the thread that calls it; call it from several at once for
// several cores.
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
