// Patch embedding's own part: pixels to rows for the linear unit, and the position table as the stream's
// first value.
#include "units.h"

namespace edgemtl {

// Pixels [height][width][3] in 128-bit words; a patch's line is three of them. Row values are pixels less
// 128. II = 1: one word in, one word of one bank out.
void patches(const word_t* pixels, int height, int width, Memory& memory) {
  const int cols = width / kPatch;
  const Region to = {0, kPatchValues / 16, 0};
  memory.used.read += static_cast<uint32_t>(height * cols * 3);
  memory.used.steps += static_cast<uint32_t>(height * cols * 3);
  int at = 0;
  for (int y = 0; y < height; ++y)
    for (int col = 0; col < cols; ++col)
      for (int w = 0; w < 3; ++w) {
#pragma HLS pipeline II = 1
        const word_t word = pixels[at++];
        const int row = y / kPatch * cols + col, c = y % kPatch * 3 + w;
        int8_t* const out = memory.pool[bank_of(to, row, c)][word_of(to, row, c)];
        for (int i = 0; i < 16; ++i)
          out[i] = static_cast<int8_t>(static_cast<uint8_t>(byte_field(word, i)) - 128);
      }
}

// II = 1 per word of the stream, which has one port to write; every other iteration reads a quad.
void load_position(EDGEMTL_WEIGHTS, uint32_t at, int values, Memory& memory) {
  memory.used.read += static_cast<uint32_t>((values + 31) / 32 * kPorts);
  memory.used.steps += static_cast<uint32_t>(values / 16);
  Quad quad = {};
  for (int i = 0; i < values / 16; ++i) {
#pragma HLS pipeline II = 1
    if (i % 2 == 0) quad = read_quad(w0, w1, w2, w3, at + static_cast<uint32_t>(i / 2));
    for (int v = 0; v < 16; ++v) memory.stream[i][v] = half_field(quad.word[i % 2 * 2 + v / 8], v % 8);
  }
}

}  // namespace edgemtl
