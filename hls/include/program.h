// The descriptor program: a header, a table of tasks, and descriptors, 16 32-bit fields each (four 128-bit
// words). compiler/edgemtl_compiler/fpga/program.py writes it; docs/numerics.md does not depend on it.
#ifndef EDGEMTL_HLS_PROGRAM_H
#define EDGEMTL_HLS_PROGRAM_H

#include <cstdint>

#include "types.h"

namespace edgemtl {

constexpr uint32_t kMagic = 0x4c544d45;  // "EMTL"
constexpr uint32_t kVersion = 2;
constexpr int kFields = 16;

enum HeaderField {
  kHMagic,
  kHVersion,
  kHOps,
  kHTasks,
  kHChecksum,
  kHHeight,
  kHWidth,
  kHDim,
  kHHeads,
  kHExperts,
  kHTopK,
  kHRenormalise,
  kHTile,
  kHHeadDim,
  kHQuads,
  kHTokens  // 1: the output is the trunk's tokens, and heads run on the host; 0: raw maps
};

enum TaskField { kTBase, kTQuads, kTChannels };

// A descriptor's fields; `at` and kOSecond count from the task's base when kORelative is set.
enum OpField { kOCode, kORelative, kOAt, kOSecond, kOHidden, kOStride };

enum OpCode {
  kEnd = 0,
  kEmbed = 1,  // at: position table, second: weights
  kNorm = 2,   // all rows
  kQkv = 3,
  kAttend = 4,
  kProject = 5,
  kMlp = 6,  // hidden
  kGate = 7,
  kExperts = 8,   // hidden, stride
  kHeadNorm = 9,  // without the class token
  kHeadProject = 10,
  kStep = 11,
  kOutput = 12,
  kTokens = 13,  // the residual stream to the output
};

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
