// Compile-time maxima and parallelism of the accelerator; everything else is a run-time argument.
#ifndef EDGEMTL_HLS_LIMITS_H
#define EDGEMTL_HLS_LIMITS_H

namespace edgemtl {

constexpr int kMaxInputs = 1536;   // widest row into the linear unit: the hidden layer of a ViT-S MLP
constexpr int kMaxOutputs = 1536;  // most output channels of one call
constexpr int kMaxRows = 1025;     // tokens of a 512x512 image with 16-pixel patches, and the class token
constexpr int kLanesIn = 16;       // inputs multiplied per cycle and output channel
constexpr int kLanesOut = 16;      // output channels computed side by side

static_assert(kMaxInputs % kLanesIn == 0, "rows are read in whole groups of lanes");
static_assert(kMaxOutputs % kLanesOut == 0, "output channels are computed in whole groups of lanes");

enum Status { kOk = 0, kBadShape = 1, kBadShift = 2 };

}  // namespace edgemtl

#endif
