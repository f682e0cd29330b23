// Made from edgemtl/fpga/contract.py, which says what each is: change it there, then type make contract.
// clang-format off
#ifndef EDGEMTL_HLS_CONTRACT_H
#define EDGEMTL_HLS_CONTRACT_H

#include <cstdint>

namespace edgemtl {

constexpr int kMaxTokens = 1025;
constexpr int kMaxDim = 384;
constexpr int kMaxHidden = 1536;
constexpr int kMaxHeads = 8;
constexpr int kMaxHeadWidth = 64;
constexpr int kMaxBlocks = 32;
constexpr int kMaxExperts = 16;
constexpr int kMaxTopK = 4;
constexpr int kMaxTasks = 8;
constexpr int kMaxChannels = 256;
constexpr int kMaxStream = 524288;
constexpr int kMaxTile = 16;
constexpr int kMaxOps = 512;
constexpr int kPatch = 16;
constexpr int kLanes = 16;
constexpr int kLanesRow = 8;
constexpr int kLanesQuery = 4;
constexpr int kLanesLeave = 4;
constexpr int kTileOut = 64;
constexpr int kTileBlocks = 384;
constexpr int kRowWords = 2048;
constexpr int kPoolWords = 8192;
constexpr int kGeluEntries = 512;
constexpr int kValueSkew = 4;
constexpr int kPorts = 4;
constexpr int kWord = 16;
constexpr uint32_t kProgramMagic = 0x4c544d45;
constexpr int kProgramVersion = 2;
constexpr int kFields = 16;
constexpr int kCounterWidth = 8;
constexpr int kRegisterVersion = 2;

enum HeaderField {
  kHMagic = 0,
  kHVersion = 1,
  kHOps = 2,
  kHTasks = 3,
  kHChecksum = 4,
  kHHeight = 5,
  kHWidth = 6,
  kHDim = 7,
  kHHeads = 8,
  kHExperts = 9,
  kHTopK = 10,
  kHRenormalise = 11,
  kHTile = 12,
  kHHeadDim = 13,
  kHQuads = 14,
  kHTokens = 15,
};

enum TaskField {
  kTBase = 0,
  kTQuads = 1,
  kTChannels = 2,
};

enum OpField {
  kOCode = 0,
  kORelative = 1,
  kOAt = 2,
  kOSecond = 3,
  kOHidden = 4,
  kOStride = 5,
};

enum OpCode {
  kEnd = 0,
  kEmbed = 1,
  kNorm = 2,
  kQkv = 3,
  kAttend = 4,
  kProject = 5,
  kMlp = 6,
  kGate = 7,
  kExperts = 8,
  kHeadNorm = 9,
  kHeadProject = 10,
  kStep = 11,
  kOutput = 12,
  kTokens = 13,
};

enum Epilogue {
  kToQkv = 0,
  kToHidden = 1,
  kAdd = 2,
  kScored = 3,
  kToStream = 4,
  kRaw = 5,
  kLogits = 6,
};

enum Status {
  kOk = 0,
  kBadShape = 1,
  kBadTable = 2,
  kBadMagic = 3,
  kBadVersion = 4,
  kBadChecksum = 5,
  kBadProgram = 6,
  kBadTask = 7,
  kBadBuffer = 8,
  kDeadlock = 9,
};

enum CounterUnit {
  kProgramUnit = 0,
  kEmbedUnit = 1,
  kNormUnit = 2,
  kLinearUnit = 3,
  kAttentionUnit = 4,
  kGateUnit = 5,
  kDepthwiseUnit = 6,
  kNarrowUnit = 7,
  kTokensUnit = 8,
  kCounterUnits = 9,
};

enum CounterField {
  kCCalls = 0,
  kCSteps = 1,
  kCCycles = 2,
  kCRead = 3,
  kCWritten = 4,
};

}  // namespace edgemtl

// The arguments of edgemtl_top.
#define EDGEMTL_ARGUMENTS \
  const edgemtl::word_t* w0, \
  const edgemtl::word_t* w1, \
  const edgemtl::word_t* w2, \
  const edgemtl::word_t* w3, \
  uint32_t quads, \
  const edgemtl::word_t* program, \
  uint32_t program_words, \
  const edgemtl::word_t* pixels, \
  uint32_t pixel_words, \
  edgemtl::word_t* output, \
  uint32_t output_words, \
  uint32_t task, \
  edgemtl::word_t* counters, \
  const volatile uint32_t* cycle

#endif
