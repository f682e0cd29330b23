// The light head's own units: depthwise 3x3 steps with GELU, and the narrowing to INT8. Pixels stay in tile
// order until they are narrowed; a neighbour is found by its address.
#include "units.h"

namespace edgemtl {
namespace {

int load_factors(EDGEMTL_WEIGHTS, uint32_t at, int32_t bias[16], Factor factors[16]) {
  int status = kOk;
  for (int q = 0; q < 2; ++q) {
    const Quad quad = read_quad(w0, w1, w2, w3, at + static_cast<uint32_t>(q));
    for (int i = 0; i < 8; ++i) {
      bias[8 * q + i] = load_bias(field(quad, 2 * i));
      factors[8 * q + i] = factor(field(quad, 2 * i + 1));
      if (!valid(factors[8 * q + i])) status = kBadTable;
    }
  }
  return status;
}

// A pixel's place in the order of tiles of 2^shift by 2^shift.
inline int tile_order(int y, int x, int cols, int shift) {
#pragma HLS inline
  const int inside = (1 << shift) - 1;
  return ((((y >> shift) * cols + (x >> shift)) << shift | (y & inside)) << shift) | (x & inside);
}

}  // namespace

constexpr int kTaps = 9;
constexpr int kLanesStep = 2;  // channels finished per tap: 16 of them take eight of the nine

// One tap of 16 channels per cycle. II = 1: a tap reads one word of the stream; beside it two channels of the
// pixel before leave through GELU into the pool, whose words are written byte by byte; the sums' recurrence
// is one addition.
int depthwise(EDGEMTL_WEIGHTS, uint32_t at, uint32_t gelu_at, int rows, int cols, int shift, int width,
              Memory& memory) {
  static Gelu gelu;
  int status = load_gelu(w0, w1, w2, w3, gelu_at, gelu);
  const int height = rows << shift, line = cols << shift, words = width / 16;
  const Region to = {0, words, 0};
  memory.used.read += kPorts * (kGeluQuads + depthwise_quads(width));
  memory.used.steps += static_cast<uint32_t>(words * (height * line + 1) * kTaps);
  for (int c = 0; c < words && status == kOk; ++c) {
    int32_t bias[16];
    Factor factors[16];
    int8_t weight[kTaps][16];
    const uint32_t here = at + static_cast<uint32_t>(c) * 5;
    status = load_factors(w0, w1, w2, w3, here, bias, factors);
    if (status != kOk) break;
    for (int q = 0; q < 3; ++q) {
      const Quad quad = read_quad(w0, w1, w2, w3, here + 2 + static_cast<uint32_t>(q));
      for (int i = 0; i < kPorts && kPorts * q + i < kTaps; ++i)
        for (int l = 0; l < 16; ++l) weight[kPorts * q + i][l] = byte_field(quad.word[i], l);
    }
    int32_t sum[16] = {};
#pragma HLS array_partition variable = sum complete
    int32_t held[16] = {};
#pragma HLS array_partition variable = held complete
    int y = 0, x = 0, before = -1;
    for (int p = 0; p <= height * line; ++p) {
      const int pixel = tile_order(y, x, cols, shift);
      for (int t = 0; t < kTaps; ++t) {
#pragma HLS pipeline II = 1
#pragma HLS dependence variable = memory.pool inter false
        if (before >= 0 && t < 16 / kLanesStep) {
          int8_t* const out = memory.pool[bank_of(to, before, c)][word_of(to, before, c)];
          for (int l = t * kLanesStep; l < (t + 1) * kLanesStep; ++l)
            out[l] = gelu8(saturate16(scale(held[l], factors[l])), gelu);
        }
        const int ny = y + t / 3 - 1, nx = x + t % 3 - 1;
        const bool inside = ny >= 0 && ny < height && nx >= 0 && nx < line;
        const int16_t* const value = memory.stream[inside ? tile_order(ny, nx, cols, shift) * words + c : 0];
        for (int l = 0; l < 16; ++l) {
          const int32_t so_far = t == 0 ? bias[l] : sum[l];
          sum[l] = so_far + (inside ? static_cast<int32_t>(value[l]) * weight[t][l] : 0);
        }
        if (t == kTaps - 1) {
          for (int l = 0; l < 16; ++l) held[l] = sum[l];
          before = pixel;
          if (++x == line) {
            x = 0;
            ++y;
          }
        }
      }
    }
  }
  return status;
}

// To INT8, and from the order of tiles to that of lines, as the output wants it. II = 1: one word of the
// stream in, one of the pool out.
int narrow(EDGEMTL_WEIGHTS, uint32_t at, int rows, int cols, int shift, int width, Memory& memory) {
  int status = kOk;
  const int height = rows << shift, line = cols << shift, words = width / 16;
  const Region to = {0, words, 0};
  memory.used.read += kPorts * narrow_quads(width);
  memory.used.steps += static_cast<uint32_t>(words * height * line);
  for (int c = 0; c < words && status == kOk; ++c) {
    int32_t bias[16];
    Factor factors[16];
    status = load_factors(w0, w1, w2, w3, at + static_cast<uint32_t>(c) * 2, bias, factors);
    if (status != kOk) break;
    int pixel = 0;
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < line; ++x, ++pixel) {
#pragma HLS pipeline II = 1
        const int16_t* const value = memory.stream[tile_order(y, x, cols, shift) * words + c];
        int8_t* const out = memory.pool[bank_of(to, pixel, c)][word_of(to, pixel, c)];
        for (int l = 0; l < 16; ++l) out[l] = saturate8(scale(value[l] + bias[l], factors[l]));
      }
  }
  return status;
}

}  // namespace edgemtl
