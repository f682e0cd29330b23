// Patch embedding's own part: pixels to rows for the linear unit, and the position table as the stream's
// first value.
#include "units.h"

namespace edgemtl {

// Pixels [height][width][3] in 128-bit words; a patch's line is three of them. Row values are pixels less
// 128.
void patches(const word_t* pixels, int height, int width, Memory& memory) {
  const int cols = width / kPatch, line = width * 3 / 16, part = share(kPatchValues);
  for (int y = 0; y < height; ++y)
    for (int w = 0; w < line; ++w) {
#pragma HLS pipeline II = 1
      const word_t word = pixels[y * line + w];
      const int row = y / kPatch * cols + w / 3, at = (y % kPatch * 3 + w % 3) * 16;
      for (int i = 0; i < 16; ++i) {
        const int value = static_cast<uint8_t>(byte_field(word, i)) - 128;
        memory.pool[at / part][row * part + at % part + i] = static_cast<int8_t>(value);
      }
    }
}

void load_position(EDGEMTL_WEIGHTS, uint32_t at, int values, Memory& memory) {
  for (int i = 0; i < values; i += 32) {
#pragma HLS pipeline II = 1
    const Quad quad = read_quad(w0, w1, w2, w3, at + i / 32);
    for (int v = 0; v < 32 && i + v < values; ++v) memory.stream[i + v] = half_field(quad.word[v / 8], v % 8);
  }
}

}  // namespace edgemtl
