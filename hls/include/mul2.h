// Two INT8 products in one DSP48E2: a and b share the factor w. The 27-bit operand is a * 2^18 + b, the
// 18-bit one w; the low 18 bits of the product are b * w, and the borrow that a negative b * w takes from a *
// w is given back. Four such products may be added before they are split, along the DSPs' own cascade: the
// sum of four b * w, at most 2^16, still fits the 18 bits.
#ifndef EDGEMTL_HLS_MUL2_H
#define EDGEMTL_HLS_MUL2_H

#include <cstdint>

namespace edgemtl {

constexpr int kCascade = 4;  // products added inside the DSPs; seven would still be exact

struct Products {
  int32_t a, b;
};

// a * 2^18 + b times w: 45 bits of the DSP's 48.
inline int64_t mul2(int8_t a, int8_t b, int8_t w) {
#pragma HLS inline
  const int32_t operand = static_cast<int32_t>(a) * (1 << 18) + b;  // 27 bits
  const int64_t packed = static_cast<int64_t>(operand) * w;
#pragma HLS bind_op variable = packed op = mul impl = dsp
  return packed;
}

// The two sums inside a packed one.
inline Products split(int64_t packed) {
#pragma HLS inline
  const int32_t low = static_cast<int32_t>(packed & 0x3ffff);
  Products p;
  p.b = low >= (1 << 17) ? low - (1 << 18) : low;
  p.a = static_cast<int32_t>(packed >> 18) + (p.b < 0 ? 1 : 0);
  return p;
}

// Weight (UQ1.15, at most 2^15) times value without a DSP: four sums of two rows each, then three more. A
// tool's own multiplier in LUTs may be larger; this one is a carry chain per sum.
inline int32_t product_of_rows(uint32_t weight, int8_t value) {
#pragma HLS inline
  const int32_t w = static_cast<int32_t>(weight);
  int32_t row[4];
  for (int i = 0; i < 4; ++i) {
#pragma HLS unroll
    const int32_t low = (value >> (2 * i)) & 1 ? w : 0, high = (value >> (2 * i + 1)) & 1 ? 2 * w : 0;
    row[i] = i < 3 ? low + high : low - high;  // the last bit is the sign's
  }
  return row[0] + 4 * row[1] + 16 * (row[2] + 4 * row[3]);
}

}  // namespace edgemtl

#endif
