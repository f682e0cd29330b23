// The unified linear unit: patch embedding, projections, gate logits, MLP, experts and head are all calls of
// it. Per cycle kLanesRow rows times 16 inputs times 16 channels.
//
// Weights stream from DDR once, a tile of channels at a time; while a tile meets every row, the next
// one is loaded, across the end of a product, of an expert and of the whole call: that is the prefetch. Rows
// are always written in the order in which they were read, with the queue naming an expert's rows, so direct
// and queued rows cannot be confused.
#include "mul2.h"
#include "units.h"

namespace edgemtl {
namespace {

// 16 x 16 weights of one step lie at one address of 16 memories of 128 bits: 32 BRAM36 per buffer. Block b is
// step b % chunks of the tile's 16 channels number b / chunks.
struct Tile {
  int8_t weight[kTileBlocks][kLanesIn][kLanesOut];
  int32_t bias[kMaxSubs][kLanesOut];
  Factor factor[kMaxSubs][kLanesOut];
};

// INT16 values into 128-bit words, written one after the other.
struct Packer {
  uint16_t word[8];
  int filled;
  uint32_t at;
};

// The tile at quad `at`: one sequential read over all four ports, a quad per cycle. II = 1: each quad writes
// either half of a table of factors (registers) or four of the 16 weight memories once.
int load_tile(EDGEMTL_WEIGHTS, uint32_t at, int inputs, int channels, Tile& tile) {
#pragma HLS inline off
  int status = kOk, part = 0;
  const int quads = static_cast<int>(linear_quads(inputs, channels)),
            each = static_cast<int>(tile_quads(inputs));
  int sub = 0, block = 0;  // block: of the weights that come next
  for (int q = 0; q < quads; ++q) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount min = 6 max = 1600
    const Quad quad = read_quad(w0, w1, w2, w3, at + static_cast<uint32_t>(q));
    if (part < 2) {
      for (int i = 0; i < 8; ++i) {
        const Factor f = factor(field(quad, 2 * i + 1));
        tile.bias[sub][8 * part + i] = load_bias(field(quad, 2 * i));
        tile.factor[sub][8 * part + i] = f;
        if (!valid(f)) status = kBadTable;
      }
    } else {
      const int i = (part - 2) % (kLanesIn / kPorts) * kPorts;
      for (int b = 0; b < kPorts; ++b)
        for (int l = 0; l < kLanesOut; ++l) tile.weight[block][i + b][l] = byte_field(quad.word[b], l);
      if (i + kPorts == kLanesIn) ++block;
    }
    if (++part == each) {
      part = 0;
      ++sub;
    }
  }
  return status;
}

// Word c of the eight rows of a group: one address, all banks, turned into the order of the rows.
void fetch(const Job& job, const Region& from, int group, int c, const Memory& memory,
           int8_t x[kLanesRow][kLanesIn]) {
#pragma HLS inline
  const int at = from.base + group * from.words + c;
  for (int j = 0; j < kLanesRow; ++j) {
#pragma HLS unroll
    const int bank = (j + c) & (kRowBanks - 1);
    const int8_t* word = job.from_pool ? memory.pool[bank][at] : memory.rows[bank][at];
    for (int i = 0; i < kLanesIn; ++i) x[j][i] = word[i];
  }
}

void multiply(const int8_t x[kLanesRow][kLanesIn], const int8_t w[kLanesIn][kLanesOut],
              int32_t sum[kLanesRow][kLanesOut]) {
#pragma HLS inline
#if defined(__SYNTHESIS__) || defined(EDGEMTL_PACKED)
  for (int j = 0; j < kLanesRow; j += 2)
    for (int l = 0; l < kLanesOut; ++l) {
#pragma HLS unroll
      Products total = {0, 0};
      for (int k = 0; k < kLanesIn; k += kCascade) {
        int64_t packed = 0;
        for (int i = k; i < k + kCascade; ++i) packed += mul2(x[j][i], x[j + 1][i], w[i][l]);
        const Products p = split(packed);
        total.a += p.a;
        total.b += p.b;
      }
      sum[j][l] += total.a;
      sum[j + 1][l] += total.b;
    }
#else
  for (int j = 0; j < kLanesRow; ++j)
    for (int k = 0; k < kLanesIn; ++k)
      for (int l = 0; l < kLanesOut; ++l) sum[j][l] += static_cast<int32_t>(x[j][k]) * w[k][l];
#endif
}

// The sums of one row and 16 channels go where the epilogue says: one word of one memory per cycle.
void finish(const Job& job, int r, int first, const int32_t sum[kLanesOut], const Tile& tile, int sub,
            const Gelu& gelu, Memory& memory) {
#pragma HLS inline
  const int row = job.epilogue == kScored ? memory.token[job.expert][r] : job.out + r;
  const int64_t score = job.epilogue == kScored ? memory.score[job.expert][r] : 0;
  int at = first / 16;
  Region to = {job.out, job.outputs / 16, 0};
  if (job.epilogue == kToQkv) {
    const int words = job.outputs / 48;
    const Region part[3] = {query_region(job.rows, 16 * words), key_region(job.rows, 16 * words),
                            value_region(job.rows, 16 * words)};
    const int which = at < words ? 0 : at < 2 * words ? 1 : 2;
    to = part[which];
    at -= which * words;
  }
  const bool to_pool = job.epilogue == kToQkv || job.epilogue == kToHidden;
  const bool to_stream = job.epilogue == kAdd || job.epilogue == kScored || job.epilogue == kToStream;
  int8_t* const word = memory.pool[to_pool ? bank_of(to, r, at) : 0][to_pool ? word_of(to, r, at) : 0];
  int16_t* const cell = memory.stream[to_stream ? row * (job.outputs / 16) + at : 0];
  for (int l = 0; l < kLanesOut; ++l) {
#pragma HLS unroll
    const int64_t value = scale(sum[l], tile.factor[sub][l]);
    const int16_t narrow = saturate16(value);
    if (job.epilogue == kToQkv) word[l] = saturate8(value);
    if (job.epilogue == kToHidden) word[l] = gelu8(narrow, gelu);
    if (job.epilogue == kToStream) cell[l] = gelu16(narrow, gelu);
    if (job.epilogue == kAdd) cell[l] = saturate16(cell[l] + value);
    if (job.epilogue == kScored) {
      const int64_t guarded = clamp(value, INT32_MIN, INT32_MAX);
      constexpr int kBy = kScoreBits + kGuardBits;
      cell[l] = saturate16(cell[l] + ((guarded * score + (static_cast<int64_t>(1) << (kBy - 1))) >> kBy));
    }
    if (job.epilogue == kLogits)  // the upper halves of the weights, then the lower seven bits
      memory.logit[r][l] = first == 0 ? sum[l] * 128 : memory.logit[r][l] + sum[l];
  }
}

// `count` values of eight, behind those that wait for their word.
void pack(const int32_t sum[8], const Factor factors[8], int count, Packer& packer, word_t* output) {
#pragma HLS inline
  uint16_t both[16];
  for (int i = 0; i < 16; ++i) {
#pragma HLS unroll
    const int v = i - packer.filled;
    both[i] = i < packer.filled ? packer.word[i]
              : v < count       ? static_cast<uint16_t>(saturate16(scale(sum[v], factors[v])))
                                : static_cast<uint16_t>(0);
  }
  const bool full = packer.filled + count >= 8;
  if (full) {
    word_t word = 0;
    for (int i = 0; i < 8; ++i) word.range(16 * i + 15, 16 * i) = both[i];
    output[packer.at++] = word;
  }
  for (int i = 0; i < 8; ++i) packer.word[i] = both[full ? i + 8 : i];
  packer.filled += full ? count - 8 : count;
}

// One tile and all rows. The loop nest is flat and has II = 1: a step reads one word of all banks of one
// memory (port A) and one address of the weights; the sums' own recurrence is one addition. The group before
// leaves through the epilogue, a row per step, on the memories' other port; it writes hidden rows where no
// row is read (another region), and adds to a word of the stream once per tile, so no step needs what the
// last few wrote.
void compute_tile(const Job& job, int first, const Tile& tile, const Gelu& gelu, Memory& memory,
                  Packer& packer, word_t* output) {
#pragma HLS inline off
  int32_t sum[kLanesRow][kLanesOut], held[kLanesRow][kLanesOut];
#pragma HLS array_partition variable = sum complete dim = 0
#pragma HLS array_partition variable = held complete dim = 0
  const int chunks = job.inputs / kLanesIn, steps = group_steps(job), groups = row_groups(job.rows);
  const int units = tile_groups(job, first);
  const Region from = {job.base, chunks, 0};
  int sub = 0, group = 0, held_sub = 0, held_group = -1;
  for (int u = 0; u <= units; ++u) {
    for (int s = 0; s < steps; ++s) {
#pragma HLS pipeline II = 1
#pragma HLS dependence variable = memory.pool inter false
#pragma HLS dependence variable = memory.stream inter false
#pragma HLS dependence variable = memory.logit inter false
      const int o = first + held_sub * kLanesOut;
      if (held_group >= 0 && job.epilogue == kRaw) {
        const int r = held_group * kLanesRow + s / 2, half = s % 2 * 8;
        const int left = job.outputs - o - half, count = left < 0 ? 0 : left < 8 ? left : 8;
        if (s < 2 * kLanesRow) {
          if (r < job.rows) pack(&held[s / 2][half], &tile.factor[held_sub][half], count, packer, output);
        } else if (s == 2 * kLanesRow && held_group == groups - 1 && packer.filled > 0) {
          word_t word = 0;  // every 16 channels begin a word
          for (int i = 0; i < packer.filled; ++i) word.range(16 * i + 15, 16 * i) = packer.word[i];
          output[packer.at++] = word;
          packer.filled = 0;
        }
      } else if (held_group >= 0 && s < kLanesRow && held_group * kLanesRow + s < job.rows) {
        finish(job, held_group * kLanesRow + s, o, held[s], tile, held_sub, gelu, memory);
      }
      if (u < units && s < chunks) {
        int8_t x[kLanesRow][kLanesIn];
#pragma HLS array_partition variable = x complete dim = 0
        fetch(job, from, group, s, memory, x);
        if (s == 0)
          for (int j = 0; j < kLanesRow; ++j)
            for (int l = 0; l < kLanesOut; ++l) sum[j][l] = job.epilogue == kLogits ? 0 : tile.bias[sub][l];
        multiply(x, tile.weight[sub * chunks + s], sum);
      }
      if (s == steps - 1) {
        for (int j = 0; j < kLanesRow; ++j)
          for (int l = 0; l < kLanesOut; ++l) held[j][l] = sum[j][l];
        held_group = u < units ? group : -1;
        held_sub = sub;
        if (++group == groups) {
          group = 0;
          ++sub;
        }
      }
    }
  }
}

// The rows that an expert's queue names, side by side in the pool: eight words of one row per cycle. II = 1:
// each bank of `rows` is read once and each of the pool written once.
void pick(const Job& job, Memory& memory) {
#pragma HLS inline off
  const Region from = {0, job.inputs / 16, 0}, to = {job.base, job.inputs / 16, 0};
  for (int r = 0; r < job.rows; ++r)
    for (int c = 0; c < to.words; c += kRowBanks) {
#pragma HLS pipeline II = 1
      const int row = memory.token[job.expert][r];
      for (int b = 0; b < kRowBanks; ++b) {
#pragma HLS unroll
        const int word = c + ((b - r) & (kRowBanks - 1)), source = (row + word) & (kRowBanks - 1);
        if (word < to.words)
          for (int i = 0; i < 16; ++i)
            memory.pool[b][word_of(to, r, word)][i] = memory.rows[source][word_of(from, row, word)][i];
      }
    }
}

}  // namespace

// Runs `count` products; `next`, if any, is the first product of the call after this one, whose first tile is
// loaded beside the last tile's computing.
int linear(EDGEMTL_WEIGHTS, const Job jobs[kMaxJobs], int count, const Job* next, Ahead& ahead,
           Memory& memory, word_t* output) {
  static Tile ping, pong;
  static Gelu gelu;
#pragma HLS array_reshape variable = ping.weight dim = 3 complete
#pragma HLS array_partition variable = ping.weight dim = 2 complete
#pragma HLS array_reshape variable = ping.bias dim = 2 complete
#pragma HLS array_reshape variable = ping.factor dim = 2 complete
#pragma HLS array_reshape variable = pong.weight dim = 3 complete
#pragma HLS array_partition variable = pong.weight dim = 2 complete
#pragma HLS array_reshape variable = pong.bias dim = 2 complete
#pragma HLS array_reshape variable = pong.factor dim = 2 complete
#pragma HLS array_partition variable = gelu.delta cyclic factor = 2
#pragma HLS allocation function instances = compute_tile limit = 1
  if (count == 0) return kOk;
  Packer packer;
#pragma HLS array_partition variable = packer.word complete
  for (int i = 0; i < 8; ++i) packer.word[i] = 0;
  packer.filled = 0;
  packer.at = 0;
  int status = kOk, turn = ahead.ready ? ahead.turn : 0;
  if (!ahead.ready) {
    status = load_tile(w0, w1, w2, w3, jobs[0].at, jobs[0].inputs, tile_channels(jobs[0], 0), ping);
    memory.used.read += kPorts * linear_quads(jobs[0].inputs, tile_channels(jobs[0], 0));
  }
  ahead.ready = false;
  int job = 0, first = 0;
  while (status == kOk && job < count) {
    const Job& now = jobs[job];
    if (first == 0) {
      if (has_gelu(now)) {
        status = load_gelu(w0, w1, w2, w3, now.gelu_at, gelu);
        memory.used.read += kPorts * kGeluQuads;
      }
      if (status != kOk) break;
      if (now.pick) pick(now, memory);
      memory.used.steps += static_cast<uint32_t>(pick_steps(now));
    }
    const int behind = first + tile_channels(now, first);
    const bool last = behind >= now.outputs;
    const int then = last ? job + 1 : job, then_first = last ? 0 : behind;
    const bool more = then < count || next != nullptr;
    const Job& coming = then < count ? jobs[then] : next != nullptr ? *next : now;
    const uint32_t at = coming.at + then_first / kLanesOut * tile_quads(coming.inputs);
    const int channels = tile_channels(coming, then_first);
    if (more) memory.used.read += kPorts * linear_quads(coming.inputs, channels);
    memory.used.steps += static_cast<uint32_t>(tile_groups(now, first) * group_steps(now));
    // In each branch two calls that share no data, so that they run side by side.
    if (turn) {
      if (more) status = load_tile(w0, w1, w2, w3, at, coming.inputs, channels, ping);
      compute_tile(now, first, pong, gelu, memory, packer, output);
    } else {
      if (more) status = load_tile(w0, w1, w2, w3, at, coming.inputs, channels, pong);
      compute_tile(now, first, ping, gelu, memory, packer, output);
    }
    job = then;
    first = then_first;
    turn ^= 1;
    if (job == count) {
      ahead.ready = next != nullptr && status == kOk;
      ahead.turn = turn;
    }
  }
  memory.used.written += packer.at;
  return status;
}

}  // namespace edgemtl
