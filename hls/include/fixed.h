// Fixed-point factors, the one rounding rule, and 2^-t: docs/numerics.md.
#ifndef EDGEMTL_HLS_FIXED_H
#define EDGEMTL_HLS_FIXED_H

#include <cstdint>

#include "types.h"

namespace edgemtl {

struct Factor {
  int32_t multiplier;  // below 2^17
  uint8_t shift;
};

inline Factor factor(uint32_t packed) {
#pragma HLS inline
  Factor f;
  f.multiplier = static_cast<int32_t>(packed & 0xffffffu);
  f.shift = static_cast<uint8_t>(packed >> 24);
  return f;
}

inline bool valid(Factor f) {
#pragma HLS inline
  return f.multiplier < (1 << 17) && f.shift >= kMinShift && f.shift <= kMaxShift;
}

// (total * multiplier + 2^(shift-1)) >> shift: ties towards plus infinity. |total| < 2^33 stays exact.
inline int64_t scale(int64_t total, Factor f) {
#pragma HLS inline
  return (total * f.multiplier + (static_cast<int64_t>(1) << (f.shift - 1))) >> f.shift;
}

inline int64_t clamp(int64_t value, int64_t low, int64_t high) {
#pragma HLS inline
  return value < low ? low : value > high ? high : value;
}

inline int8_t saturate8(int64_t value) {
#pragma HLS inline
  return static_cast<int8_t>(clamp(value, -128, 127));
}

inline int16_t saturate16(int64_t value) {
#pragma HLS inline
  return static_cast<int16_t>(clamp(value, -32768, 32767));
}

inline int32_t load_bias(uint32_t bits, int32_t limit = kBiasLimit) {
#pragma HLS inline
  return static_cast<int32_t>(clamp(static_cast<int32_t>(bits), -limit, limit));
}

// 2^(-t/256) in UQ1.15.
inline uint32_t exp2_negative(int64_t t) {
#pragma HLS inline
  const int64_t whole = t >> 8;
  if (whole >= 16) return 0;
  const uint32_t value = kExp2[t & 255];
  return (value + ((1u << whole) >> 1)) >> whole;
}

}  // namespace edgemtl

#endif
