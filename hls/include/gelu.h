// GELU as ReLU minus a table with linear interpolation: the epilogue of a linear or depthwise product.
#ifndef EDGEMTL_HLS_GELU_H
#define EDGEMTL_HLS_GELU_H

#include "fixed.h"

namespace edgemtl {

constexpr int kGeluQuads = 1 + kGeluEntries * 2 / 64;

struct Gelu {
  uint16_t delta[kGeluEntries];
  int32_t step;  // entry i is delta at |p| = i << step
  int32_t zero;  // added to an INT8 output
};

int load_gelu(const word_t* w0, const word_t* w1, const word_t* w2, const word_t* w3, uint32_t at,
              Gelu& gelu);

inline int16_t gelu16(int16_t p, const Gelu& gelu) {
#pragma HLS inline
  const int32_t magnitude = p < 0 ? -static_cast<int32_t>(p) : p;
  const int32_t index = magnitude >> gelu.step;
  const int32_t here = index < kGeluEntries ? gelu.delta[index] : 0;
  const int32_t after = index + 1 < kGeluEntries ? gelu.delta[index + 1] : 0;
  const int32_t rest = magnitude & ((1 << gelu.step) - 1);
  const int32_t delta = here + (((after - here) * rest + ((1 << gelu.step) >> 1)) >> gelu.step);
  return saturate16((p > 0 ? p : 0) - delta);
}

inline int8_t gelu8(int16_t p, const Gelu& gelu) {
#pragma HLS inline
  const int32_t wide = gelu16(p, gelu);
  return saturate8(((wide + (1 << (kGeluFraction - 1))) >> kGeluFraction) + gelu.zero);
}

}  // namespace edgemtl

#endif
