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
#pragma HLS unroll
    rest = rest * 4 + ((value >> (2 * i)) & 3);
    root *= 2;
    if (rest > 2 * root) {
      rest -= 2 * root + 1;
      root += 1;
    }
  }
  return static_cast<uint32_t>(root);
}

struct Inverse {
  int64_t reciprocal;
  int shift;  // back to kUnitBits
};

// 2^61 / root, the variance having been doubled in pairs until it lies in [2^60, 2^62).
Inverse invert(uint64_t variance) {
#pragma HLS inline
  int up = 0;
  for (int step = 16; step >= 1; step /= 2) {
#pragma HLS unroll
    if (up + step <= 30 && variance < static_cast<uint64_t>(1) << (62 - 2 * step)) {
      variance <<= 2 * step;
      up += step;
    }
  }
  Inverse inverse;
  inverse.reciprocal = static_cast<int64_t>((static_cast<uint64_t>(1) << 61) / integer_sqrt(variance));
  inverse.shift = 61 - kUnitBits - up;
  return inverse;
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
  // Sums of row r beside the normalising of row r - 1. II = 1: the stream is read once on either port, and
  // every iteration asks the pipelined root and divider anew, so nothing waits for the quotient of the one
  // before.
  const int words = dim / 16;
  const Region to = {0, words, 0};
  memory.used.read += kPorts * norm_quads(dim);
  memory.used.steps += static_cast<uint32_t>((rows + 1) * words);
  int64_t total = 0, squares = 0, total_before = 0, squares_before = 0;
  for (int r = 0; r <= rows; ++r)
    for (int c = 0; c < words; ++c) {
#pragma HLS pipeline II = 1
      if (r > 0) {
        const Inverse inverse =
            invert(static_cast<uint64_t>(dim * squares_before - total_before * total_before) + epsilon);
        const int16_t* const x = memory.stream[(first + r - 1) * words + c];
        int8_t* const y = memory.rows[bank_of(to, r - 1, c)][word_of(to, r - 1, c)];
        for (int l = 0; l < 16; ++l) {
#pragma HLS unroll
          const int64_t times = static_cast<int64_t>(dim) * x[l];
#pragma HLS bind_op variable = times op = mul impl = fabric
          const int64_t centred = times - total_before;
          const int64_t n =
              (centred * inverse.reciprocal + (static_cast<int64_t>(1) << (inverse.shift - 1))) >>
              inverse.shift;
          constexpr int kBy = kUnitBits + kGammaBits;
          const int64_t scaled =
              n * gamma[16 * c + l] + static_cast<int64_t>(beta[16 * c + l]) * (1 << kUnitBits);
          y[l] = saturate8((scaled + (static_cast<int64_t>(1) << (kBy - 1))) >> kBy);
        }
      }
      if (r < rows) {
        if (c == 0) total = squares = 0;
        const int16_t* const x = memory.stream[(first + r) * words + c];
        for (int l = 0; l < 16; ++l) {
          const int32_t value = x[l];
          total += value;
          squares += value * value;
        }
        if (c == words - 1) {
          total_before = total;
          squares_before = squares;
        }
      }
    }
  return kOk;
}

}  // namespace edgemtl
