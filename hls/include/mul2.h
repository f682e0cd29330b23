// Two INT8 products in one DSP48E2: a and b share the factor w. The 27-bit operand is a * 2^18 + b, the
// 18-bit one w; the low 18 bits of the product are b * w, and the borrow that a negative b * w takes from a *
// w is given back.
#ifndef EDGEMTL_HLS_MUL2_H
#define EDGEMTL_HLS_MUL2_H

#include <cstdint>

namespace edgemtl {

struct Products {
  int32_t a, b;
};

inline Products mul2(int8_t a, int8_t b, int8_t w) {
#pragma HLS inline
  const int32_t operand = static_cast<int32_t>(a) * (1 << 18) + b;  // 27 bits
  const int64_t packed = static_cast<int64_t>(operand) * w;
#pragma HLS bind_op variable = packed op = mul impl = dsp
  const int32_t low = static_cast<int32_t>(packed & 0x3ffff);
  Products p;
  p.b = low >= (1 << 17) ? low - (1 << 18) : low;
  p.a = static_cast<int32_t>(packed >> 18) + (p.b < 0 ? 1 : 0);
  return p;
}

}  // namespace edgemtl

#endif
