// Words at the ports and the memories on chip. Wide integers appear at the ports only; inside, arrays of
// bytes.
#ifndef EDGEMTL_HLS_TYPES_H
#define EDGEMTL_HLS_TYPES_H

#include <ap_int.h>
#include <hls_stream.h>

#include <cstdint>

#include "limits.h"

namespace edgemtl {

typedef ap_uint<128> word_t;
typedef hls::stream<int16_t, kLanesRow * kLanesOut> raw_stream;
typedef hls::stream<uint8_t, kMaxExperts> metaqueue_stream;

// Everything that a frame leaves behind between two units. The pool's banks are query, key and value to the
// attention, and together the hidden rows to a product; no two of these live at the same time.
struct Memory {
  int16_t stream[kMaxStream];  // residual stream [tokens][dim], later the head's [pixels][width]
  int8_t rows[kBankSize];      // normalised rows or the attention's output, [tokens][dim]
  int8_t pool[kBanks][kBankSize];
  uint16_t token[kMaxExperts][kMaxTokens];  // queues: who chose the expert, in ascending order
  uint16_t score[kMaxExperts][kMaxTokens];  // and with which score, UQ1.15
  uint16_t length[kMaxExperts];
};

// The weight image: quad q is the 64 bytes at word q of four banks, one per port.
struct Quad {
  word_t word[kBanks];
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

// Rows wider than a bank's share lie across the banks, a quarter (rounded up to whole words) in each.
inline int share(int width) {
#pragma HLS inline
  return (width + 16 * kBanks - 1) / (16 * kBanks) * 16;
}

}  // namespace edgemtl

#endif
