// Attention with a key stream that never restarts (the reordering of Edge-MoE, Sarkar et al., ICCAD 2023),
// its two passes fused here: while p queries meet the keys, the p before them meet the values.
//
// Slot j takes query b * p + j when key j goes by, so it sees the keys j .. N-1, 0 .. j-1, and a new query is
// loaded beside every key, never between. The scores of a slot lie in a ring of N: at key k the old query's
// score is read (its maximum is now exact), weighted with value k, and overwritten by the new query's. No
// score leaves the chip.
#include "units.h"

namespace edgemtl {
namespace {

constexpr int kMeanBits = 16;

struct Slot {
  int8_t query[kMaxDim];
  int scoring, weighing;      // queries in the two passes, or -1
  int32_t most[kMaxHeads];    // greatest score so far of the query being scored
  int32_t anchor[kMaxHeads];  // greatest score of the query being weighed
  uint32_t weights[kMaxHeads];
  int64_t value[kMaxDim];
};

}  // namespace

int attention(EDGEMTL_WEIGHTS, uint32_t at, int tokens, int dim, int heads, Memory& memory) {
  static Slot slot[kLanesQuery];
  static int32_t ring[kLanesQuery][kMaxHeads][kMaxTokens];
  static Factor out[kMaxDim];
#pragma HLS array_partition variable = slot complete
#pragma HLS array_partition variable = ring dim = 1 complete
  Factor exponent[kMaxHeads];
  int status = kOk;
  const Quad head = read_quad(w0, w1, w2, w3, at);
  for (int h = 0; h < heads; ++h) {
    exponent[h] = factor(field(head, h));
    if (!valid(exponent[h])) status = kBadTable;
  }
  for (int q = 0; q < dim / 16; ++q) {
#pragma HLS pipeline II = 1
    const Quad quad = read_quad(w0, w1, w2, w3, at + 1 + q);
    for (int i = 0; i < 16; ++i) {
      out[16 * q + i] = factor(field(quad, i));
      if (!valid(out[16 * q + i])) status = kBadTable;
    }
  }
  if (status != kOk) return status;

  const int width = dim / heads;
  for (int j = 0; j < kLanesQuery; ++j) slot[j].scoring = slot[j].weighing = -1;
  const int blocks = (tokens + kLanesQuery - 1) / kLanesQuery + 2;  // the last queries leave two blocks later
  for (int b = 0; b < blocks; ++b) {
    for (int k = 0; k < tokens; ++k) {
      for (int j = 0; j < kLanesQuery; ++j) {
#pragma HLS unroll
        Slot& s = slot[j];
        if (k == j) {  // every query of this slot has seen every key
          if (s.weighing >= 0)
            for (int h = 0; h < heads; ++h) {
              const int64_t reciprocal =
                  static_cast<int64_t>((static_cast<uint64_t>(1) << kReciprocalBits) / s.weights[h]);
              for (int i = h * width; i < (h + 1) * width; ++i) {
#pragma HLS pipeline II = 1
                constexpr int kBy = kReciprocalBits - kMeanBits;
                const int64_t mean =
                    (s.value[i] * reciprocal + (static_cast<int64_t>(1) << (kBy - 1))) >> kBy;
                memory.rows[s.weighing * dim + i] = saturate8(scale(mean, out[i]));
              }
            }
          s.weighing = s.scoring;
          s.scoring = b * kLanesQuery + j < tokens ? b * kLanesQuery + j : -1;
          for (int h = 0; h < heads; ++h) {
            s.anchor[h] = s.most[h];
            s.most[h] = INT32_MIN;
            s.weights[h] = 0;
          }
          for (int i = 0; i < dim; ++i) s.value[i] = 0;
          if (s.scoring >= 0)
            for (int i = 0; i < dim; ++i) s.query[i] = memory.pool[0][s.scoring * dim + i];
        }
        for (int h = 0; h < heads; ++h) {
#pragma HLS pipeline II = 4
          const int first = h * width;
          int32_t& cell = ring[j][h][k];
          if (s.weighing >= 0) {
            const uint32_t weight =
                exp2_negative(scale(static_cast<int64_t>(s.anchor[h]) - cell, exponent[h]));
            s.weights[h] += weight;
            for (int i = 0; i < width; ++i)
              s.value[first + i] +=
                  static_cast<int32_t>(weight) * static_cast<int32_t>(memory.pool[2][k * dim + first + i]);
          }
          if (s.scoring >= 0) {
            int32_t score = 0;
            for (int i = 0; i < width; ++i)
              score += static_cast<int16_t>(s.query[first + i]) *
                       static_cast<int16_t>(memory.pool[1][k * dim + first + i]);
            cell = score;
            if (score > s.most[h]) s.most[h] = score;
          }
        }
      }
    }
  }
  return kOk;
}

}  // namespace edgemtl
