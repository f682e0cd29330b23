// The light head's own units: depthwise 3x3 steps with GELU, and the narrowing to INT8. Pixels stay in tile
// order; a neighbour is found by its address.
#include "units.h"

namespace edgemtl {
namespace {

int load_factors(EDGEMTL_WEIGHTS, uint32_t at, int32_t bias[16], Factor factors[16]) {
  int status = kOk;
  for (int i = 0; i < 16; ++i) {
    const Quad quad = read_quad(w0, w1, w2, w3, at + i / 8);
    bias[i] = load_bias(field(quad, i % 8 * 2));
    factors[i] = factor(field(quad, i % 8 * 2 + 1));
    if (!valid(factors[i])) status = kBadTable;
  }
  return status;
}

}  // namespace

int depthwise(EDGEMTL_WEIGHTS, uint32_t at, uint32_t gelu_at, int rows, int cols, int tile, int width,
              Memory& memory) {
  static Gelu gelu;
  int status = load_gelu(w0, w1, w2, w3, gelu_at, gelu);
  const int height = rows * tile, line = cols * tile, part = share(width);
  for (int first = 0; first < width && status == kOk; first += 16) {
    int32_t bias[16];
    Factor factors[16];
    int8_t weight[9][16];
    const uint32_t here = at + first / 16 * 5;
    status = load_factors(w0, w1, w2, w3, here, bias, factors);
    if (status != kOk) break;
    for (int t = 0; t < 9; ++t) {
      const Quad quad = read_quad(w0, w1, w2, w3, here + 2 + t / 4);
      for (int l = 0; l < 16; ++l) weight[t][l] = byte_field(quad.word[t % 4], l);
    }
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < line; ++x) {
        int32_t sum[16];
        for (int l = 0; l < 16; ++l) sum[l] = bias[l];
        for (int t = 0; t < 9; ++t) {
#pragma HLS pipeline II = 1
          const int ny = y + t / 3 - 1, nx = x + t % 3 - 1;
          if (ny < 0 || ny >= height || nx < 0 || nx >= line) continue;
          const int pixel = ((ny / tile * cols + nx / tile) * tile + ny % tile) * tile + nx % tile;
          for (int l = 0; l < 16; ++l)
            sum[l] += static_cast<int32_t>(memory.stream[pixel * width + first + l]) * weight[t][l];
        }
        const int pixel = ((y / tile * cols + x / tile) * tile + y % tile) * tile + x % tile;
        for (int l = 0; l < 16; ++l)
          memory.pool[first / part][pixel * part + first % part + l] =
              gelu8(saturate16(scale(sum[l], factors[l])), gelu);
      }
  }
  return status;
}

int narrow(EDGEMTL_WEIGHTS, uint32_t at, int pixels, int width, Memory& memory) {
  int status = kOk;
  const int part = share(width);
  for (int first = 0; first < width && status == kOk; first += 16) {
    int32_t bias[16];
    Factor factors[16];
    status = load_factors(w0, w1, w2, w3, at + first / 8, bias, factors);
    for (int p = 0; p < pixels && status == kOk; ++p) {
#pragma HLS pipeline II = 1
      for (int l = 0; l < 16; ++l)
        memory.pool[first / part][p * part + first % part + l] =
            saturate8(scale(memory.stream[p * width + first + l] + bias[l], factors[l]));
    }
  }
  return status;
}

}  // namespace edgemtl
