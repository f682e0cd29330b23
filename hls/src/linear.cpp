// The linear unit, first form: INT8 rows times INT8 weights per output channel, INT32 sums, one requantisation.
// A row stays on chip while all of its output channels are computed, kLanesOut side by side.
#include <cstdint>

#include "limits.h"
#include "requantise.h"

// x [rows][inputs], weight [outputs][inputs], bias, multiplier and shift [outputs], y [rows][outputs].
// Returns a Status and leaves y alone when a shape is outside the maxima or a shift outside its range.
extern "C" int edgemtl_linear(const int8_t *x, const int8_t *weight, const int32_t *bias, const int32_t *multiplier,
                              const uint8_t *shift, int8_t *y, int rows, int inputs, int outputs) {
  using namespace edgemtl;
  if (rows < 1 || rows > kMaxRows || inputs < 1 || inputs > kMaxInputs || outputs < 1 || outputs > kMaxOutputs)
    return kBadShape;
  for (int o = 0; o < outputs; ++o)
    if (shift[o] < kMinShift || shift[o] > kMaxShift) return kBadShift;

  int8_t row[kMaxInputs];
#pragma HLS array_partition variable = row cyclic factor = 16
  for (int r = 0; r < rows; ++r) {
    for (int i = 0; i < inputs; ++i) {
#pragma HLS pipeline II = 1
      row[i] = x[r * inputs + i];
    }
    for (int first = 0; first < outputs; first += kLanesOut) {
      const int lanes = outputs - first < kLanesOut ? outputs - first : kLanesOut;
      int32_t sum[kLanesOut];
#pragma HLS array_partition variable = sum complete
      for (int l = 0; l < lanes; ++l) sum[l] = bias[first + l];
      for (int i = 0; i < inputs; ++i) {
#pragma HLS pipeline II = 1
        for (int l = 0; l < lanes; ++l) sum[l] += static_cast<int32_t>(row[i]) * weight[(first + l) * inputs + i];
      }
      for (int l = 0; l < lanes; ++l)
        y[r * outputs + first + l] = requantise(sum[l], multiplier[first + l], shift[first + l]);
    }
  }
  return kOk;
}
