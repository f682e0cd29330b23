// Compile-time maxima and parallelism of the accelerator; everything else comes with the descriptor program.
#ifndef EDGEMTL_HLS_LIMITS_H
#define EDGEMTL_HLS_LIMITS_H

namespace edgemtl {

constexpr int kMaxTokens = 1025;  // a 512x512 image in 16-pixel patches, and the class token
constexpr int kMaxDim = 384;      // ViT-S
constexpr int kMaxHidden = 1536;  // of an MLP, an expert, or the head's projection
constexpr int kMaxHeads = 8;
constexpr int kMaxHeadWidth = 64;
constexpr int kMaxBlocks = 32;
constexpr int kMaxExperts = 16;
constexpr int kMaxTopK = 4;
constexpr int kMaxTasks = 8;
constexpr int kMaxChannels = 256;   // of a raw map
constexpr int kMaxStream = 524288;  // values of the residual stream, or of the head's stream
constexpr int kMaxTile = 16;        // pixels of the raw map along a patch's side
constexpr int kMaxOps = 512;
constexpr int kPatch = 16;
constexpr int kPatchValues = kPatch * kPatch * 3;

constexpr int kLanesIn = 16;    // inputs multiplied per cycle
constexpr int kLanesOut = 16;   // output channels side by side
constexpr int kLanesRow = 4;    // token rows side by side; two share a DSP48E2 (mul2.h)
constexpr int kLanesQuery = 4;  // queries that one pass over the keys serves
constexpr int kBanks = 4;       // memories of the pool, and 128-bit ports of the weights

constexpr int kBankSize = kMaxTokens * kMaxDim;
constexpr int kMaxInputs = kMaxHidden;
constexpr int kGeluEntries = 512;

static_assert(kMaxInputs % kLanesIn == 0, "rows are read in whole groups of lanes");
static_assert(kMaxDim % kLanesOut == 0, "channels are computed in whole groups of lanes");
static_assert(kLanesIn == 16 && kLanesOut == 16, "a 128-bit word holds the 16 lanes of one input");
static_assert(kLanesRow % 2 == 0, "rows are packed in pairs");
static_assert(kMaxTokens * kMaxDim <= kMaxStream, "the residual stream fits its memory");
static_assert(kPatchValues <= kMaxInputs && kPatchValues / kBanks * (kMaxTokens - 1) <= kBankSize,
              "the pool holds every patch");
static_assert(kMaxHidden / kBanks * kMaxTokens <= kBankSize, "the pool holds the hidden rows");
static_assert(kBanks == 4 && kPatch == 16, "the layouts of weights and pixels");
// Exactness: kMaxInputs products of INT8 values and a bias below 2^25 stay in INT32; logits of the gate do
// with weights below 2^14; a query's dot product stays below 2^20, and 1,025 weights of 2^15 times a value
// below 2^33.
static_assert(kMaxInputs <= 2048 && kMaxHeadWidth <= 64 && kMaxDim <= 512, "the widths of the sums");

enum Status {
  kOk = 0,
  kBadShape = 1,     // a dimension outside the maxima
  kBadTable = 2,     // a value in the weight image outside its range
  kBadMagic = 3,     // not a descriptor program
  kBadVersion = 4,   // a program of another version
  kBadChecksum = 5,  // a damaged program
  kBadProgram = 6,   // an unknown descriptor, or an address outside the weight image
  kBadTask = 7,      // no such task
  kBadBuffer = 8,    // the pixels' or the output's buffer has the wrong size
  kDeadlock = 9,     // C simulation alone: a stream that can never go on
};

}  // namespace edgemtl

#endif
