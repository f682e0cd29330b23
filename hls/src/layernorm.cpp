// LayerNorm: exact sums of a row, D * sum(x^2) - sum(x)^2 without cancellation, an exact integer root, and
// per channel n * gamma + beta with one rounding to INT8.
#include "units.h"

namespace edgemtl {
namespace {

constexpr int kUnitBits = 12;   // fraction bits of a normalised value (18 bits with sign)
constexpr int kGammaBits = 16;  // of gamma and beta

// Floor of the square root of value < 2^62, one bit per step.
uint32_t integer_sqrt(uint64_t value) {
  uint64_t root = 0, rest = 0;
  for (int i = 30; i >= 0; --i) {
#pragma HLS pipeline
    rest = rest * 4 + ((value >> (2 * i)) & 3);
    root *= 2;
    if (rest > 2 * root) {
      rest -= 2 * root + 1;
      root += 1;
    }
  }
  return static_cast<uint32_t>(root);
}

}  // namespace

int layer_norm(EDGEMTL_WEIGHTS, uint32_t at, int first, int rows, int dim, Memory& memory) {
  static int32_t gamma[kMaxDim], beta[kMaxDim];
#pragma HLS array_partition variable = gamma cyclic factor = 16
#pragma HLS array_partition variable = beta cyclic factor = 16
  const Quad head = read_quad(w0, w1, w2, w3, at);
  const uint64_t epsilon = static_cast<uint64_t>(field(head, 1)) << 32 | field(head, 0);
  if (epsilon < 1 || epsilon >= static_cast<uint64_t>(1) << 59) return kBadTable;
  for (int q = 0; q < dim / 8; ++q) {
#pragma HLS pipeline II = 1
    const Quad quad = read_quad(w0, w1, w2, w3, at + 1 + q);
    for (int i = 0; i < 8; ++i) {
      gamma[8 * q + i] = static_cast<int32_t>(field(quad, 2 * i));
      beta[8 * q + i] = static_cast<int32_t>(field(quad, 2 * i + 1));
    }
  }
  for (int r = 0; r < rows; ++r) {
    const int row = (first + r) * dim;
    int64_t total = 0, squares = 0;
    for (int i = 0; i < dim; i += 16) {
#pragma HLS pipeline II = 1
      for (int l = 0; l < 16; ++l) {
        const int32_t x = memory.stream[row + i + l];
        total += x;
        squares += x * x;
      }
    }
    uint64_t variance = static_cast<uint64_t>(dim * squares - total * total) + epsilon;
    int up = 0;  // doublings in pairs, until the variance lies in [2^60, 2^62)
    for (int step = 16; step >= 1; step /= 2) {
#pragma HLS unroll
      if (up + step <= 30 && variance < static_cast<uint64_t>(1) << (62 - 2 * step)) {
        variance <<= 2 * step;
        up += step;
      }
    }
    const int64_t reciprocal =
        static_cast<int64_t>((static_cast<uint64_t>(1) << 61) / integer_sqrt(variance));
    const int shift = 61 - kUnitBits - up;
    for (int i = 0; i < dim; ++i) {
#pragma HLS pipeline II = 1
#pragma HLS unroll factor = 16
      const int64_t centred = static_cast<int64_t>(dim) * memory.stream[row + i] - total;
      const int64_t n = (centred * reciprocal + (static_cast<int64_t>(1) << (shift - 1))) >> shift;
      constexpr int kBy = kUnitBits + kGammaBits;
      const int64_t scaled = n * gamma[i] + static_cast<int64_t>(beta[i]) * (1 << kUnitBits);
      memory.rows[r * dim + i] = saturate8((scaled + (static_cast<int64_t>(1) << (kBy - 1))) >> kBy);
    }
  }
  return kOk;
}

}  // namespace edgemtl
