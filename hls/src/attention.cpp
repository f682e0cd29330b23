// Attention with a key stream that never restarts (the reordering of Edge-MoE, Sarkar et al., ICCAD 2023),
// its two passes fused here: while p queries meet the keys, the p before them meet the values.
//
// Slot j takes query b * p + j when key j goes by, so it sees the keys j .. N-1, 0 .. j-1, and a new query is
// loaded beside the key, never between. The scores of a slot lie in a ring of N: at key k the old query's
// score is read (its maximum is now exact), weighted with value k, and overwritten by the new query's. No
// score leaves the chip. A head's whole width of key and value goes by per cycle.
#include <hls_stream.h>

#include "mul2.h"
#include "units.h"

namespace edgemtl {
namespace {

constexpr int kMeanBits = 16;
constexpr int kWidthWords = kMaxHeadWidth / 16;

struct Slot {
  int8_t query[kMaxHeads][kMaxHeadWidth];
  int scoring, weighing, leaving;  // queries in the two passes and on their way out, or -1
  int32_t most[kMaxHeads];         // greatest score so far of the query being scored
  int32_t anchor[kMaxHeads];       // greatest score of the query being weighed
  uint32_t weights[kMaxHeads];
  int64_t value[kMaxHeads][kMaxHeadWidth];  // below 2^33
};

// A head of a query whose values are complete.
struct Leaving {
  int query, head;
  uint32_t weights;
  int64_t value[kMaxHeadWidth];
};
typedef hls::stream<Leaving, kLanesQuery * kMaxHeads> leaving_stream;

struct Tables {
  Factor exponent[kMaxHeads], out[kMaxDim];
};

int load_tables(EDGEMTL_WEIGHTS, uint32_t at, int dim, int heads, Tables& tables) {
  int status = kOk;
  const Quad head = read_quad(w0, w1, w2, w3, at);
  for (int h = 0; h < heads; ++h) {
    tables.exponent[h] = factor(field(head, h));
    if (!valid(tables.exponent[h])) status = kBadTable;
  }
  for (int q = 0; q < dim / 16; ++q) {
#pragma HLS pipeline II = 1
    const Quad quad = read_quad(w0, w1, w2, w3, at + 1 + static_cast<uint32_t>(q));
    for (int i = 0; i < 16; ++i) {
      tables.out[16 * q + i] = factor(field(quad, i));
      if (!valid(tables.out[16 * q + i])) status = kBadTable;
    }
  }
  return status;
}

// `count` words of a row from word `first` on; the rest is zero, which adds nothing to a product.
void read_words(const Memory& memory, const Region& region, int row, int first, int count,
                int8_t out[kMaxHeadWidth]) {
#pragma HLS inline
  for (int w = 0; w < kWidthWords; ++w) {
#pragma HLS unroll
    const int c = first + (w < count ? w : 0);
    const int8_t* word = memory.pool[bank_of(region, row, c)][word_of(region, row, c)];
    for (int i = 0; i < 16; ++i) out[16 * w + i] = w < count ? word[i] : static_cast<int8_t>(0);
  }
}

// Two queries' products with one key; the pair shares a multiplier (mul2.h).
Products dot(const int8_t a[kMaxHeadWidth], const int8_t b[kMaxHeadWidth], const int8_t key[kMaxHeadWidth]) {
#pragma HLS inline
  Products total = {0, 0};
#if defined(__SYNTHESIS__) || defined(EDGEMTL_PACKED)
  for (int i = 0; i < kMaxHeadWidth; i += kCascade) {
    int64_t packed = 0;
    for (int c = i; c < i + kCascade; ++c) packed += mul2(a[c], b[c], key[c]);
    const Products p = split(packed);
    total.a += p.a;
    total.b += p.b;
  }
#else
  for (int i = 0; i < kMaxHeadWidth; ++i) {
    total.a += static_cast<int16_t>(a[i]) * static_cast<int16_t>(key[i]);
    total.b += static_cast<int16_t>(b[i]) * static_cast<int16_t>(key[i]);
  }
#endif
  return total;
}

int32_t weigh(uint32_t weight, int8_t value) {
#pragma HLS inline
#if defined(__SYNTHESIS__) || defined(EDGEMTL_PACKED)
  return product_of_rows(weight, value);  // the DSPs are the linear unit's
#else
  return static_cast<int32_t>(weight) * static_cast<int32_t>(value);
#endif
}

void keep(Slot& s, int h, int32_t score, int32_t& cell) {
#pragma HLS inline
  if (s.scoring < 0) return;
  cell = score;
  if (score > s.most[h]) s.most[h] = score;
}

// One block of queries over `keys` keys. II = 1 per key and head: key and value lie in four banks each, which
// are disjoint (port A of all eight), the one slot that changes its query reads it through port B. Scores sit
// in a ring of their own per slot, read and written once. The sums' recurrence is one addition, in
// distributed RAM per head.
void pass(int block, int keys, int tokens, int dim, int heads, const Tables& tables, Slot slot[kLanesQuery],
          const Memory& memory, leaving_stream& leaving) {
#pragma HLS inline off
  static int32_t ring[kLanesQuery][kMaxTokens * kMaxHeads];
#pragma HLS array_partition variable = ring dim = 1 complete
#pragma HLS dependence variable = ring inter false
  const Region queries = query_region(tokens, dim), key_rows = key_region(tokens, dim),
               value_rows = value_region(tokens, dim);
  const int words = dim / heads / 16;
  for (int k = 0; k < keys; ++k)
    for (int h = 0; h < heads; ++h) {
#pragma HLS pipeline II = 1
      int8_t key[kMaxHeadWidth], value[kMaxHeadWidth];
      read_words(memory, key_rows, k, h * words, words, key);
      read_words(memory, value_rows, k, h * words, words, value);
      for (int j = 0; j < kLanesQuery; ++j) {
#pragma HLS unroll
        Slot& s = slot[j];
        if (k == j) {  // every query of this slot has seen every key
          if (h == 0) {
            const int query = block * kLanesQuery + j;
            s.leaving = s.weighing;
            s.weighing = s.scoring;
            s.scoring = query < tokens ? query : -1;
          }
          if (s.leaving >= 0) {
            Leaving packet;
            packet.query = s.leaving;
            packet.head = h;
            packet.weights = s.weights[h];
            for (int i = 0; i < kMaxHeadWidth; ++i) packet.value[i] = s.value[h][i];
            leaving.write(packet);
          }
          s.anchor[h] = s.most[h];
          s.most[h] = INT32_MIN;
          s.weights[h] = 0;
          for (int i = 0; i < kMaxHeadWidth; ++i) s.value[h][i] = 0;
          if (s.scoring >= 0) read_words(memory, queries, s.scoring, h * words, words, s.query[h]);
        }
        if (s.weighing >= 0) {
          const int64_t below = static_cast<int64_t>(s.anchor[h]) - ring[j][k * heads + h];
          const uint32_t weight = exp2_negative(scale(below, tables.exponent[h]));
          s.weights[h] += weight;
          for (int i = 0; i < kMaxHeadWidth; ++i) {
            s.value[h][i] += weigh(weight, value[i]);
          }
        }
      }
      for (int j = 0; j < kLanesQuery; j += 2) {
#pragma HLS unroll
        const Products score = dot(slot[j].query[h], slot[j + 1].query[h], key);
        keep(slot[j], h, score.a, ring[j][k * heads + h]);
        keep(slot[j + 1], h, score.b, ring[j + 1][k * heads + h]);
      }
    }
}

// The complete queries' means, kLanesLeave values per cycle, beside the next block's pass. II = 1: every
// iteration asks the pipelined divider anew, so nothing waits for the quotient of the one before.
void leave(int dim, int heads, const Tables& tables, leaving_stream& leaving, Memory& memory) {
#pragma HLS inline off
  constexpr int kBy = kReciprocalBits - kMeanBits;
  const int width = dim / heads;
  const Region to = {0, dim / 16, 0};
  while (!leaving.empty()) {
    const Leaving packet = leaving.read();
    for (int first = 0; first < width; first += kLanesLeave) {
#pragma HLS pipeline II = 1
      const int64_t reciprocal =
          static_cast<int64_t>((static_cast<uint64_t>(1) << kReciprocalBits) / packet.weights);
      const int o = packet.head * width + first;
      int8_t* const word = memory.rows[bank_of(to, packet.query, o / 16)][word_of(to, packet.query, o / 16)];
      for (int l = 0; l < kLanesLeave; ++l) {
#pragma HLS unroll
        const int64_t mean =
            (packet.value[first + l] * reciprocal + (static_cast<int64_t>(1) << (kBy - 1))) >> kBy;
        word[o % 16 + l] = saturate8(scale(mean, tables.out[o + l]));
      }
    }
  }
}

}  // namespace

int attention(EDGEMTL_WEIGHTS, uint32_t at, int tokens, int dim, int heads, Memory& memory) {
  static Slot slot[kLanesQuery];
  static Tables tables;
  leaving_stream leaving("attention.leaving");
#pragma HLS array_partition variable = slot complete
#pragma HLS array_partition variable = slot.value dim = 2 complete
#pragma HLS array_partition variable = slot.query dim = 2 complete
#pragma HLS bind_storage variable = slot.value type = ram_2p impl = lutram
#pragma HLS array_partition variable = tables.out cyclic factor = 16
  const int status = load_tables(w0, w1, w2, w3, at, dim, heads, tables);
  if (status != kOk) return status;
  for (int j = 0; j < kLanesQuery; ++j) slot[j].scoring = slot[j].weighing = slot[j].leaving = -1;
  // The last block is scored, then weighed; then its queries leave as the first p keys go by once more.
  const int blocks = (tokens + kLanesQuery - 1) / kLanesQuery + 1;
  const int rest = tokens < kLanesQuery ? tokens : kLanesQuery;
  memory.used.read += kPorts * attention_quads(dim);
  memory.used.steps += static_cast<uint32_t>((blocks * tokens + rest) * heads);
  for (int b = 0; b <= blocks; ++b) {
#pragma HLS dataflow
    pass(b, b < blocks ? tokens : rest, tokens, dim, heads, tables, slot, memory, leaving);
    leave(dim, heads, tables, leaving, memory);
  }
  return kOk;
}

}  // namespace edgemtl
