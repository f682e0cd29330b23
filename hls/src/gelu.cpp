// Loads a GELU table: a quad with step and zero point, then 512 UINT16 entries.
#include "gelu.h"

namespace edgemtl {

int load_gelu(const word_t* w0, const word_t* w1, const word_t* w2, const word_t* w3, uint32_t at,
              Gelu& gelu) {
  const Quad head = read_quad(w0, w1, w2, w3, at);
  gelu.step = static_cast<int32_t>(field(head, 0));
  gelu.zero = static_cast<int32_t>(field(head, 1));
  if (gelu.step < 0 || gelu.step > 15 || gelu.zero < -256 || gelu.zero > 256) return kBadTable;
  for (int q = 0; q < kGeluQuads - 1; ++q) {
#pragma HLS pipeline II = 1
    const Quad quad = read_quad(w0, w1, w2, w3, at + 1 + q);
    for (int i = 0; i < 32; ++i)
      gelu.delta[32 * q + i] = static_cast<uint16_t>(half_field(quad.word[i / 8], i % 8));
  }
  return kOk;
}

}  // namespace edgemtl
