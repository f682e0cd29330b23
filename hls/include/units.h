// The units, one source file each. All take the four banks of the weight image and the memories on chip.
#ifndef EDGEMTL_HLS_UNITS_H
#define EDGEMTL_HLS_UNITS_H

#include "fixed.h"
#include "gelu.h"
#include "types.h"

#define EDGEMTL_WEIGHTS const word_t *w0, const word_t *w1, const word_t *w2, const word_t *w3

namespace edgemtl {

// One product: rows [rows][inputs] times weights [outputs][inputs].
struct Job {
  uint32_t at;       // first weight tile
  uint32_t gelu_at;  // GELU table of kToHidden and kToStream
  bool from_pool;    // rows from the pool at `base`, else from `rows`
  int base;
  int rows, inputs, outputs;
  int out;  // first row of the stream, or the first word of the hidden rows in the pool
  Epilogue epilogue;
  int expert;  // whose queue names the rows written (kScored), or, when `pick`, the rows read
  bool pick;   // the queue's rows are copied to the pool at `base` first
};

constexpr int kMaxJobs = 2 * kMaxExperts;
constexpr int kMaxSubs = 32;                  // times 16 channels of a weight tile
constexpr int kRawSteps = 2 * kLanesRow + 1;  // half a row per cycle to the one output port, and a last word

// The first tile of the product that comes next, when it was loaded ahead: in which of the two buffers.
struct Ahead {
  bool ready;
  int turn;
};

// Quads of the tables, from their shapes.
inline uint32_t tile_quads(int inputs) { return 2 + inputs / 4; }
inline uint32_t linear_quads(int inputs, int outputs) { return (outputs + 15) / 16 * tile_quads(inputs); }
inline uint32_t norm_quads(int dim) { return 1 + dim / 8; }
inline uint32_t attention_quads(int dim) { return 1 + dim / 16; }
inline uint32_t gate_quads(int dim) { return 3 + linear_quads(dim, 2 * kMaxExperts); }
inline uint32_t mlp_quads(int dim, int hidden) {
  return kGeluQuads + linear_quads(dim, hidden) + linear_quads(hidden, dim);
}
inline uint32_t depthwise_quads(int width) { return width / 16 * 5; }
inline uint32_t narrow_quads(int width) { return width / 16 * 2; }

// Output channels of a weight tile from `first` on. An expert's tiles are as large as the buffer, since it
// waits for weights and every tile waits once for the DDR's first answer; the others' are small, since they
// compute.
inline int tile_channels(const Job& job, int first) {
#pragma HLS inline
  const int room = kTileBlocks / (job.inputs / kLanesIn);
  const int most = job.expert < 0 ? kTileOut : kLanesOut * (room < kMaxSubs ? room : kMaxSubs);
  return job.outputs - first < most ? job.outputs - first : most;
}

// Steps of a group of rows and 16 channels: the inputs', or what the epilogue needs for the group before.
inline int group_steps(const Job& job) {
#pragma HLS inline
  const int chunks = job.inputs / kLanesIn, least = job.epilogue == kRaw ? kRawSteps : kLanesRow;
  return chunks > least ? chunks : least;
}

// Groups of rows and 16 channels of the tile from `first` on.
inline int tile_groups(const Job& job, int first) {
#pragma HLS inline
  return (tile_channels(job, first) + kLanesOut - 1) / kLanesOut * row_groups(job.rows);
}

inline bool has_gelu(const Job& job) {
#pragma HLS inline
  return job.epilogue == kToHidden || job.epilogue == kToStream;
}

// Steps that copying the rows of an expert's queue takes.
inline int pick_steps(const Job& job) {
#pragma HLS inline
  return job.pick ? job.rows * ((job.inputs / 16 + kRowBanks - 1) / kRowBanks) : 0;
}

int linear(EDGEMTL_WEIGHTS, const Job jobs[kMaxJobs], int count, const Job* next, Ahead& ahead,
           Memory& memory, word_t* output);
int layer_norm(EDGEMTL_WEIGHTS, uint32_t at, int first, int rows, int dim, Memory& memory);
int attention(EDGEMTL_WEIGHTS, uint32_t at, int tokens, int dim, int heads, Memory& memory);
int gate(EDGEMTL_WEIGHTS, uint32_t at, int tokens, int experts, int top_k, bool renormalise, Memory& memory);
int expert_jobs(uint32_t at, uint32_t stride, int count, int dim, int hidden, const Memory& memory,
                Job jobs[kMaxJobs]);
void patches(const word_t* pixels, int height, int width, Memory& memory);
void load_position(EDGEMTL_WEIGHTS, uint32_t at, int values, Memory& memory);
int depthwise(EDGEMTL_WEIGHTS, uint32_t at, uint32_t gelu_at, int rows, int cols, int shift, int width,
              Memory& memory);
int narrow(EDGEMTL_WEIGHTS, uint32_t at, int rows, int cols, int shift, int width, Memory& memory);

}  // namespace edgemtl

#endif
