// The descriptor program (contract.h) as the top level has read it: a frame's shape, and a descriptor.
#ifndef EDGEMTL_HLS_PROGRAM_H
#define EDGEMTL_HLS_PROGRAM_H

#include <cstdint>

#include "types.h"

namespace edgemtl {

struct Shape {
  int height, width, rows, cols, tokens, dim, heads, experts, top_k, head_dim, channels, pixels;
  int tile, shift;  // pixels of the raw map along a patch's side: 2^shift
  bool renormalise, to_tokens;
};

struct Op {
  uint32_t code, at, second;
  int hidden;
  uint32_t stride;
};

}  // namespace edgemtl

#endif
