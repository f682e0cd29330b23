// The one rounding of every INT8 unit: an INT32 sum times a channel's multiplier, shifted right, saturated to INT8.
// Same rule as `requantise` in compiler/edgemtl_compiler/hls/reference.py; docs/numerics.md states it.
#ifndef EDGEMTL_HLS_REQUANTISE_H
#define EDGEMTL_HLS_REQUANTISE_H

#include <cstdint>

namespace edgemtl {

constexpr int kMinShift = 1;
constexpr int kMaxShift = 62;

inline int8_t requantise(int32_t sum, int32_t multiplier, int shift) {
#pragma HLS inline
  const int64_t half = static_cast<int64_t>(1) << (shift - 1);
  const int64_t scaled = (static_cast<int64_t>(sum) * multiplier + half) >> shift;  // ties towards plus infinity
  if (scaled > 127) return 127;
  if (scaled < -128) return -128;
  return static_cast<int8_t>(scaled);
}

}  // namespace edgemtl

#endif
