// Words at the ports and the memories on chip. Wide integers appear at the ports only; inside, arrays of
// bytes, 16 to a word.
#ifndef EDGEMTL_HLS_TYPES_H
#define EDGEMTL_HLS_TYPES_H

#include <ap_int.h>

#include <cstdint>

#include "limits.h"

namespace edgemtl {

typedef ap_uint<128> word_t;

// What the unit that runs has used so far; top.cpp books it (counters.h). Steps are the trip counts, times
// the interval, of the loops that follow one another, those apart that load weights: no run takes fewer
// cycles. Words are of 128 bits, over all ports.
struct Used {
  uint32_t steps, read, written;
};

// Everything that a frame leaves behind between two units. Rows and pool hold INT8 rows in diagonal banks:
// word c of row r lies in bank (r + c + skew) mod 8 at base + r / 8 * words + c. So the same word of eight
// rows (what the linear unit reads) lies at one address of all banks, and eight neighbouring words of one row
// (a head's key and value, a row being copied) in eight different banks: no access waits for another, and
// nothing is wasted. The pool holds query, key and value, or hidden rows with the rows that made them; these
// never live at once.
struct Memory {
  int16_t stream[kMaxStream / 16][16];    // residual stream [tokens][dim], later the head's [pixels][width]
  int8_t rows[kRowBanks][kRowWords][16];  // normalised rows or the attention's output
  int8_t pool[kRowBanks][kPoolWords][16];
  int32_t logit[kMaxTokens][kMaxExperts];
  uint16_t token[kMaxExperts][kMaxTokens];  // queues: who chose the expert, in ascending order
  uint16_t score[kMaxExperts][kMaxTokens];  // and with which score, UQ1.15
  uint16_t length[kMaxExperts];
  Used used;
};

// Where the rows of a region lie.
struct Region {
  int base;   // first word of every bank
  int words;  // per row
  int skew;
};

inline int bank_of(const Region& region, int row, int word) {
#pragma HLS inline
  return (row + word + region.skew) & (kRowBanks - 1);
}

inline int word_of(const Region& region, int row, int word) {
#pragma HLS inline
  return region.base + (row >> 3) * region.words + word;
}

inline int row_groups(int rows) {
#pragma HLS inline
  return (rows + kRowBanks - 1) / kRowBanks;
}

// The pool while the attention runs. The value's skew puts a head's value beside its key, in the other banks.
inline Region query_region(int tokens, int dim) {
#pragma HLS inline
  (void)tokens;
  return {0, dim / 16, 0};
}
inline Region key_region(int tokens, int dim) {
#pragma HLS inline
  return {row_groups(tokens) * (dim / 16), dim / 16, 0};
}
inline Region value_region(int tokens, int dim) {
#pragma HLS inline
  return {2 * row_groups(tokens) * (dim / 16), dim / 16, kValueSkew};
}

// The weight image: quad q is the 64 bytes at word q of four banks, one per port.
struct Quad {
  word_t word[kPorts];
};

inline Quad read_quad(const word_t* w0, const word_t* w1, const word_t* w2, const word_t* w3, uint32_t at) {
#pragma HLS inline
  Quad quad;
  quad.word[0] = w0[at];
  quad.word[1] = w1[at];
  quad.word[2] = w2[at];
  quad.word[3] = w3[at];
  return quad;
}

inline uint32_t field(const word_t& word, int i) {
#pragma HLS inline
  return static_cast<uint32_t>(word.range(32 * i + 31, 32 * i).to_uint64());
}

inline uint32_t field(const Quad& quad, int i) {
#pragma HLS inline
  return field(quad.word[i / 4], i % 4);
}

inline int16_t half_field(const word_t& word, int i) {
#pragma HLS inline
  return static_cast<int16_t>(word.range(16 * i + 15, 16 * i).to_uint64());
}

inline int8_t byte_field(const word_t& word, int i) {
#pragma HLS inline
  return static_cast<int8_t>(word.range(8 * i + 7, 8 * i).to_uint64());
}

}  // namespace edgemtl

#endif
