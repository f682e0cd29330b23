// The unified linear unit: patch embedding, projections, MLP, experts and head are all calls of it.
//
// Weights stream from DDR once, 16 output channels (a tile) at a time; while a tile meets every row, the next
// one is loaded, across the end of a product and of an expert: that is the prefetch. Per cycle kLanesRow rows
// times 16 inputs times 16 channels. Token numbers always come with the rows, so direct and queued rows
// cannot be confused.
#include "mul2.h"
#include "units.h"

namespace edgemtl {
namespace {

struct Tile {
  int8_t weight[kMaxInputs][kLanesOut];
  int32_t bias[kLanesOut];
  Factor factor[kLanesOut];
};

int load_tile(EDGEMTL_WEIGHTS, uint32_t at, int inputs, Tile& tile) {
#pragma HLS inline off
  int status = kOk;
  for (int q = 0; q < 2; ++q) {
    const Quad quad = read_quad(w0, w1, w2, w3, at + q);
    for (int i = 0; i < 8; ++i) {
#pragma HLS unroll
      tile.bias[8 * q + i] = load_bias(field(quad, 2 * i));
      tile.factor[8 * q + i] = factor(field(quad, 2 * i + 1));
      if (!valid(tile.factor[8 * q + i])) status = kBadTable;
    }
  }
  for (int i = 0; i < inputs; i += kBanks) {
#pragma HLS pipeline II = 1
    const Quad quad = read_quad(w0, w1, w2, w3, at + 2 + i / kBanks);
    for (int b = 0; b < kBanks; ++b)
      for (int l = 0; l < kLanesOut; ++l) tile.weight[i + b][l] = byte_field(quad.word[b], l);
  }
  return status;
}

// Row r of the job's input, 16 values per cycle.
void fetch(const Job& job, int r, const Memory& memory, int8_t x[kMaxInputs]) {
#pragma HLS inline
  if (!job.from_pool) {
    const int row = job.expert >= 0 && job.gather ? memory.token[job.expert][r] : r;
    for (int i = 0; i < job.inputs; ++i) x[i] = memory.rows[row * job.inputs + i];
    return;
  }
  int row = r;
  if (job.epilogue == kRaw) {  // pixels lie token by token; the output wants them line by line
    const int line = job.cols * job.tile, py = r / line, px = r % line;
    row = ((py / job.tile * job.cols + px / job.tile) * job.tile + py % job.tile) * job.tile + px % job.tile;
  }
  const int part = share(job.inputs);
  for (int b = 0; b < kBanks; ++b) {
    const int first = b * part, last = first + part < job.inputs ? first + part : job.inputs;
    for (int i = first; i < last; ++i) x[i] = memory.pool[b][row * part + i - first];
  }
}

// The sums of one row and 16 channels go where the epilogue says.
void finish(const Job& job, int r, int first, const int32_t sum[kLanesOut], const Tile& tile,
            const Gelu& gelu, Memory& memory, raw_stream& raw) {
#pragma HLS inline
  const bool scattered = job.expert >= 0 && !job.gather;
  const int row = scattered ? memory.token[job.expert][r] : job.out_first + r;
  const int64_t score = scattered ? memory.score[job.expert][r] : 0;
  const int part = share(job.outputs);
  for (int l = 0; l < kLanesOut; ++l) {
#pragma HLS unroll
    const int o = first + l;
    const int64_t value = scale(sum[l], tile.factor[l]);
    int16_t& cell =
        memory.stream[job.epilogue == kRaw || job.epilogue <= kToHidden ? 0 : row * job.outputs + o];
    if (job.epilogue == kToQkv) {
      const int dim = job.outputs / 3;
      memory.pool[o / dim][r * dim + o % dim] = saturate8(value);
    } else if (job.epilogue == kToHidden) {
      memory.pool[o / part][r * part + o % part] = gelu8(saturate16(value), gelu);
    } else if (job.epilogue == kAdd) {
      cell = saturate16(cell + value);
    } else if (job.epilogue == kScored) {
      const int64_t guarded = clamp(value, INT32_MIN, INT32_MAX);
      constexpr int kBy = kScoreBits + kGuardBits;
      cell = saturate16(cell + ((guarded * score + (static_cast<int64_t>(1) << (kBy - 1))) >> kBy));
    } else if (job.epilogue == kToStream) {
      cell = gelu16(saturate16(value), gelu);
    } else if (o < job.outputs) {
      raw.write(saturate16(value));
    }
  }
}

// INT16 values into 128-bit words, written one after the other.
struct Packer {
  word_t word;
  int filled;
  uint32_t at;
};

void drain(raw_stream& raw, Packer& packer, word_t* output) {
#pragma HLS inline
  while (!raw.empty()) {
#pragma HLS pipeline II = 1
    const uint16_t value = static_cast<uint16_t>(raw.read());
    packer.word.range(16 * packer.filled + 15, 16 * packer.filled) = value;
    if (++packer.filled == 8) {
      output[packer.at++] = packer.word;
      packer.filled = 0;
      packer.word = 0;
    }
  }
}

void compute_tile(const Job& job, int first, const Tile& tile, const Gelu& gelu, Memory& memory,
                  Packer& packer, word_t* output) {
#pragma HLS inline off
  static int8_t x[kLanesRow][kMaxInputs];
#pragma HLS array_partition variable = x dim = 1 complete
#pragma HLS array_partition variable = x dim = 2 cyclic factor = 16
  raw_stream raw("linear.raw");
  for (int r = 0; r < job.rows; r += kLanesRow) {
    const int rows = job.rows - r < kLanesRow ? job.rows - r : kLanesRow;
    for (int j = 0; j < rows; ++j) fetch(job, r + j, memory, x[j]);
    int32_t sum[kLanesRow][kLanesOut];
#pragma HLS array_partition variable = sum complete dim = 0
    for (int j = 0; j < kLanesRow; ++j)
      for (int l = 0; l < kLanesOut; ++l) sum[j][l] = tile.bias[l];
    for (int i = 0; i < job.inputs; i += kLanesIn) {
#pragma HLS pipeline II = 1
      for (int k = i; k < i + kLanesIn; ++k) {
#if defined(__SYNTHESIS__) || defined(EDGEMTL_PACKED)
        for (int j = 0; j < kLanesRow; j += 2)
          for (int l = 0; l < kLanesOut; ++l) {
            const Products p = mul2(x[j][k], x[j + 1][k], tile.weight[k][l]);
            sum[j][l] += p.a;
            sum[j + 1][l] += p.b;
          }
#else
        for (int j = 0; j < kLanesRow; ++j)
          for (int l = 0; l < kLanesOut; ++l) sum[j][l] += static_cast<int32_t>(x[j][k]) * tile.weight[k][l];
#endif
      }
    }
    for (int j = 0; j < rows; ++j) finish(job, r + j, first, sum[j], tile, gelu, memory, raw);
    if (job.epilogue == kRaw) drain(raw, packer, output);
  }
  if (packer.filled) {  // every tile of channels begins a word
    output[packer.at++] = packer.word;
    packer.filled = 0;
    packer.word = 0;
  }
}

bool has_gelu(const Job& job) { return job.epilogue == kToHidden || job.epilogue == kToStream; }

}  // namespace

int linear(EDGEMTL_WEIGHTS, const Job jobs[kMaxJobs], int count, Memory& memory, word_t* output) {
  static Tile ping, pong;
  static Gelu gelu;
#pragma HLS array_partition variable = ping.weight dim = 2 complete
#pragma HLS array_partition variable = ping.weight dim = 1 cyclic factor = 16
#pragma HLS array_partition variable = pong.weight dim = 2 complete
#pragma HLS array_partition variable = pong.weight dim = 1 cyclic factor = 16
#pragma HLS allocation function instances = compute_tile limit = 1
  if (count == 0) return kOk;
  Packer packer;
  packer.word = 0;
  packer.filled = 0;
  packer.at = 0;
  int status = load_tile(w0, w1, w2, w3, jobs[0].at, jobs[0].inputs, ping);
  if (status == kOk && has_gelu(jobs[0])) status = load_gelu(w0, w1, w2, w3, jobs[0].gelu_at, gelu);
  int job = 0, first = 0, turn = 0;
  while (status == kOk && job < count) {
    const Job& now = jobs[job];
    const bool last = first + kLanesOut >= now.outputs;
    const int next = last ? job + 1 : job, next_first = last ? 0 : first + kLanesOut;
    const bool more = next < count;
    const Job& then = jobs[more ? next : job];
    const uint32_t at = then.at + next_first / kLanesOut * tile_quads(then.inputs);
    // In each branch two calls that share no data, so that they run side by side.
    if (turn) {
      if (more) status = load_tile(w0, w1, w2, w3, at, then.inputs, ping);
      compute_tile(now, first, pong, gelu, memory, packer, output);
    } else {
      if (more) status = load_tile(w0, w1, w2, w3, at, then.inputs, pong);
      compute_tile(now, first, ping, gelu, memory, packer, output);
    }
    if (status == kOk && more && last && has_gelu(then))
      status = load_gelu(w0, w1, w2, w3, then.gelu_at, gelu);
    job = next;
    first = next_first;
    turn ^= 1;
  }
  return status;
}

}  // namespace edgemtl
