// What follows from the compiled maxima and lanes (contract.h), and the arithmetic that must hold for them.
#ifndef EDGEMTL_HLS_LIMITS_H
#define EDGEMTL_HLS_LIMITS_H

#include "contract.h"

namespace edgemtl {

constexpr int kPatchValues = kPatch * kPatch * 3;
constexpr int kMaxInputs = kMaxHidden;
constexpr int kLanesIn = kLanes;   // inputs multiplied per cycle
constexpr int kLanesOut = kLanes;  // output channels side by side

// Memories of INT8 rows: words of 16 values, in eight banks (types.h). What is stored is rows times words, so
// few wide rows or many narrow ones: 1,025 tokens of 192 channels, 680 of 384.
constexpr int kRowBanks = kLanesRow;

static_assert(kMaxInputs % kLanesIn == 0, "rows are read in whole groups of lanes");
static_assert(kMaxDim % kLanesOut == 0 && kTileOut % kLanesOut == 0, "channels go in whole groups of lanes");
static_assert(kLanesIn == 16 && kLanesOut == 16, "a 128-bit word holds the 16 lanes of one input");
static_assert(kLanesRow % 2 == 0, "rows are packed in pairs");
static_assert(kRowBanks == 8, "bank_of and word_of");
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

}  // namespace edgemtl

#endif
