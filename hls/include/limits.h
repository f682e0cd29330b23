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

constexpr int kLanesIn = 16;      // inputs multiplied per cycle
constexpr int kLanesOut = 16;     // output channels side by side
constexpr int kLanesRow = 8;      // token rows side by side; two share a DSP48E2 (mul2.h)
constexpr int kLanesQuery = 4;    // queries that one pass over the keys serves
constexpr int kLanesLeave = 4;    // values of the attention's output finished per cycle
constexpr int kTileOut = 64;      // output channels per weight tile, but for an expert's
constexpr int kTileBlocks = 384;  // blocks of 16 x 16 weights that a tile's buffer holds
constexpr int kPorts = 4;         // 128-bit ports of the weights

// Memories of INT8 rows: words of 16 values, in eight banks (types.h). What is stored is rows times words, so
// few wide rows or many narrow ones: 1,025 tokens of 192 channels, 680 of 384.
constexpr int kRowBanks = 8;
constexpr int kRowWords = 2048;   // per bank, of the normalised rows
constexpr int kPoolWords = 8192;  // per bank, of query, key and value, or the hidden rows
constexpr int kMaxInputs = kMaxHidden;
constexpr int kGeluEntries = 512;

static_assert(kMaxInputs % kLanesIn == 0, "rows are read in whole groups of lanes");
static_assert(kMaxDim % kLanesOut == 0 && kTileOut % kLanesOut == 0, "channels go in whole groups of lanes");
static_assert(kLanesIn == 16 && kLanesOut == 16, "a 128-bit word holds the 16 lanes of one input");
static_assert(kLanesRow % 2 == 0, "rows are packed in pairs");
static_assert(kLanesRow == kRowBanks, "the rows of a group lie in as many banks");
static_assert(2 * kMaxHeadWidth <= 16 * kRowBanks, "key and value of a head lie in different banks");
static_assert(kMaxInputs / kLanesIn * (kTileOut / kLanesOut) <= kTileBlocks, "the widest tile fits");
static_assert(kMaxHeadWidth % kLanesLeave == 0, "values leave in whole groups of lanes");
static_assert(kLanesQuery <= kRowBanks, "a slot's query is loaded while key j goes by");
static_assert((kMaxTokens + 7) / 8 * 12 <= kRowWords, "ViT-T holds every token");
static_assert(kPorts == 4 && kPatch == 16, "the layouts of weights and pixels");
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
