// The linear and the attention unit as their Verilated twins (hls/rtl), in place of src/linear.cpp and
// src/attention.cpp: gathers a unit's streams from the memories, runs the twin, puts the results where the
// epilogue says, and moves the wire `cycle` on by the cycles that the twin took. Nothing is loaded ahead:
// each product waits for its own first weights.
#include <hls_stream.h>

#include <cstring>
#include <vector>

#include "../include/units.h"
#include "simulated.h"

namespace edgemtl {
namespace {

// linear_run and attention_run of hls/rtl/*_harness.cpp.
struct LinearJob {
  int32_t rows, words, tiles, epilogue;
};
struct AttentionJob {
  int32_t tokens, heads, steps;
};
struct StreamBeat {
  int16_t cell[16];
  uint16_t score;
};
typedef int64_t (*LinearRun)(const LinearJob*, int64_t, const uint8_t*, int64_t, const uint8_t*, int64_t,
                             int64_t, const StreamBeat*, int64_t, uint8_t*, int64_t, uint32_t, uint32_t,
                             uint32_t, int64_t, int32_t*);
typedef int64_t (*AttentionRun)(const AttentionJob*, int64_t, const uint8_t*, int64_t, const uint8_t*,
                                int64_t, const uint8_t*, int64_t, uint8_t*, int64_t, uint32_t, uint32_t,
                                uint32_t, int64_t, int32_t*);
LinearRun linear_run = nullptr;
AttentionRun attention_run = nullptr;

typedef std::vector<uint8_t> Bytes;

// Quads of the weight image as one run of bytes, behind what is there already.
void append(EDGEMTL_WEIGHTS, uint32_t at, uint32_t count, Bytes& bytes) {
  for (uint32_t q = at; q < at + count; ++q)
    for (const word_t* bank : {w0, w1, w2, w3})
      for (int i = 0; i < 16; ++i) bytes.push_back(static_cast<uint8_t>(byte_field(bank[q], i)));
}

// Books the cycles; a twin that breaks its protocol is a fault of the simulation, not of the frame.
int finished(int64_t cycles, int32_t bad_table) {
  if (cycles < 0) throw hls::deadlock("a twin did not finish, or lost a result");
  simulated_cycle += static_cast<uint32_t>(cycles);
  return bad_table ? kBadTable : kOk;
}

// The twin's name of an epilogue: hls/rtl/linear_epilogue.sv.
int epilogue_of(Epilogue epilogue) {
  switch (epilogue) {
    case kToQkv:
      return 0;
    case kRaw:
      return 1;
    case kAdd:
      return 2;
    case kScored:
      return 3;
    case kToHidden:
      return 4;
    case kToStream:
      return 5;
    default:
      return 6;
  }
}

// The row of the stream that a job's row r belongs to.
int stream_row(const Job& job, int r, const Memory& memory) {
  return job.epilogue == kScored ? memory.token[job.expert][r] : job.out + r;
}

// Per tile of 16 channels and group of rows: 16 inputs of each row, the last group padded with zeros.
Bytes row_beats(const Job& job, int tiles, const Memory& memory) {
  const int chunks = job.inputs / 16, groups = row_groups(job.rows);
  const Region from = {job.pick ? 0 : job.base, chunks, 0};
  Bytes once(static_cast<size_t>(groups) * chunks * kLanesRow * 16);
  for (int r = 0; r < job.rows; ++r) {
    const int row = job.pick ? memory.token[job.expert][r] : r;
    for (int c = 0; c < chunks; ++c) {
      const int bank = bank_of(from, row, c), word = word_of(from, row, c);
      const int8_t* source = job.from_pool && !job.pick ? memory.pool[bank][word] : memory.rows[bank][word];
      const size_t beat = static_cast<size_t>(r / kLanesRow * chunks + c);
      std::memcpy(&once[(beat * kLanesRow + r % kLanesRow) * 16], source, 16);
    }
  }
  Bytes beats;
  for (int t = 0; t < tiles; ++t) beats.insert(beats.end(), once.begin(), once.end());
  return beats;
}

// Results [tile][row][16] of INT32 to the memory that the epilogue names.
void put(const Job& job, const std::vector<int32_t>& results, Memory& memory, word_t* output,
         uint32_t& written) {
  const int tiles = (job.outputs + 15) / 16;
  for (int t = 0; t < tiles; ++t) {
    int filled = 0;
    word_t raw = 0;
    for (int r = 0; r < job.rows; ++r) {
      const int32_t* const result = &results[(static_cast<size_t>(t) * job.rows + r) * 16];
      if (job.epilogue == kToQkv || job.epilogue == kToHidden) {
        const int words = job.outputs / 48, which = job.epilogue == kToQkv ? t / words : 0;
        const Region parts[3] = {query_region(job.rows, 16 * words), key_region(job.rows, 16 * words),
                                 value_region(job.rows, 16 * words)};
        const Region to = job.epilogue == kToQkv ? parts[which] : Region{job.out, tiles, 0};
        const int c = t - which * words;
        int8_t* const word = memory.pool[bank_of(to, r, c)][word_of(to, r, c)];
        for (int l = 0; l < 16; ++l) word[l] = static_cast<int8_t>(result[l]);
      } else if (job.epilogue == kRaw) {
        for (int l = 0; l < 16 && 16 * t + l < job.outputs; ++l) {
          raw.range(16 * filled + 15, 16 * filled) = static_cast<uint16_t>(result[l]);
          if (++filled == 8) {
            output[written++] = raw;
            raw = 0;
            filled = 0;
          }
        }
      } else if (job.epilogue == kLogits) {
        for (int l = 0; l < 16; ++l)
          memory.logit[r][l] = t == 0 ? result[l] * 128 : memory.logit[r][l] + result[l];
      } else {
        int16_t* const cell = memory.stream[stream_row(job, r, memory) * (job.outputs / 16) + t];
        for (int l = 0; l < 16; ++l) cell[l] = static_cast<int16_t>(result[l]);
      }
    }
    if (filled) output[written++] = raw;  // every 16 channels begin a word
  }
}

int product(EDGEMTL_WEIGHTS, const Job& job, Memory& memory, word_t* output) {
  const int tiles = (job.outputs + 15) / 16;
  Bytes quads;
  if (has_gelu(job)) append(w0, w1, w2, w3, job.gelu_at, kGeluQuads, quads);
  append(w0, w1, w2, w3, job.at, linear_quads(job.inputs, job.outputs), quads);
  const Bytes rows = row_beats(job, tiles, memory);
  const bool adds = job.epilogue == kAdd || job.epilogue == kScored;
  const size_t count = static_cast<size_t>(tiles) * job.rows;
  std::vector<StreamBeat> stream(adds ? count : 0);
  for (size_t i = 0; i < stream.size(); ++i) {
    const int r = static_cast<int>(i) % job.rows, t = static_cast<int>(i) / job.rows;
    std::memcpy(stream[i].cell, memory.stream[stream_row(job, r, memory) * tiles + t], 32);
    stream[i].score = job.epilogue == kScored ? memory.score[job.expert][r] : 0;
  }
  std::vector<int32_t> results(count * 16);
  const LinearJob given = {job.rows, job.inputs / 16, tiles, epilogue_of(job.epilogue)};
  const int64_t quad_count = static_cast<int64_t>(quads.size() / 64);
  const int64_t beats = static_cast<int64_t>(rows.size() / (kLanesRow * 16)),
                wanted = static_cast<int64_t>(count);
  int32_t bad = 0;
  const int64_t cycles =
      linear_run(&given, 1, quads.data(), quad_count, rows.data(), kLanesRow * 16, beats, stream.data(),
                 static_cast<int64_t>(stream.size()), reinterpret_cast<uint8_t*>(results.data()), wanted, 0,
                 0, 0, 10000 + 20 * (quad_count + beats + wanted), &bad);
  const int status = finished(cycles, bad);
  uint32_t written = 0;
  if (status == kOk) put(job, results, memory, output, written);
  memory.used.read += kPorts * static_cast<uint32_t>(quad_count);
  memory.used.written += written;
  memory.used.steps += static_cast<uint32_t>(pick_steps(job));
  for (int first = 0; first < job.outputs; first += tile_channels(job, first))
    memory.used.steps += static_cast<uint32_t>(tile_groups(job, first) * group_steps(job));
  return status;
}

// A head's part of a row, 64 bytes with zeros behind its width.
void head_beat(const Memory& memory, const Region& region, int row, int head, int words, Bytes& beats) {
  for (int w = 0; w < kMaxHeadWidth / 16; ++w) {
    const int c = head * words + w;
    const int8_t* word = memory.pool[bank_of(region, row, c)][word_of(region, row, c)];
    for (int i = 0; i < 16; ++i) beats.push_back(w < words ? static_cast<uint8_t>(word[i]) : 0);
  }
}

}  // namespace

int linear(EDGEMTL_WEIGHTS, const Job jobs[kMaxJobs], int count, const Job* next, Ahead& ahead,
           Memory& memory, word_t* output) {
  (void)next;
  ahead.ready = false;
  int status = kOk;
  for (int j = 0; j < count && status == kOk; ++j) status = product(w0, w1, w2, w3, jobs[j], memory, output);
  return status;
}

int attention(EDGEMTL_WEIGHTS, uint32_t at, int tokens, int dim, int heads, Memory& memory) {
  const int words = dim / heads / 16, rest = tokens < kLanesQuery ? tokens : kLanesQuery;
  const int blocks = (tokens + kLanesQuery - 1) / kLanesQuery + 1;
  const Region query = query_region(tokens, dim), key = key_region(tokens, dim);
  const Region value = value_region(tokens, dim), to = {0, dim / 16, 0};
  Bytes quads, queries, keys;
  append(w0, w1, w2, w3, at, attention_quads(dim), quads);
  for (int t = 0; t < tokens; ++t)
    for (int h = 0; h < heads; ++h) head_beat(memory, query, t, h, words, queries);
  for (int b = 0; b <= blocks; ++b)
    for (int k = 0; k < (b < blocks ? tokens : rest); ++k)
      for (int h = 0; h < heads; ++h) {
        head_beat(memory, key, k, h, words, keys);
        head_beat(memory, value, k, h, words, keys);
      }
  Bytes results(queries.size());
  const AttentionJob given = {tokens, heads, dim / heads / 4};
  const int64_t wanted = static_cast<int64_t>(results.size() / 64);
  const int64_t key_count = static_cast<int64_t>(keys.size() / 128);
  int32_t bad = 0;
  const int64_t cycles = attention_run(&given, 1, quads.data(), static_cast<int64_t>(quads.size() / 64),
                                       queries.data(), wanted, keys.data(), key_count, results.data(), wanted,
                                       0, 0, 0, 10000 + 4 * (key_count + 20 * wanted), &bad);
  const int status = finished(cycles, bad);
  memory.used.read += kPorts * attention_quads(dim);
  memory.used.steps += static_cast<uint32_t>((blocks * tokens + rest) * heads);
  for (int t = 0; t < tokens && status == kOk; ++t)
    for (int h = 0; h < heads; ++h)
      for (int w = 0; w < words; ++w) {
        const int c = h * words + w;
        std::memcpy(memory.rows[bank_of(to, t, c)][word_of(to, t, c)],
                    &results[static_cast<size_t>(t * heads + h) * 64 + static_cast<size_t>(w) * 16], 16);
      }
  return status;
}

}  // namespace edgemtl

extern "C" void edgemtl_csim_twins(void* linear, void* attention) {
  edgemtl::linear_run = reinterpret_cast<edgemtl::LinearRun>(linear);
  edgemtl::attention_run = reinterpret_cast<edgemtl::AttentionRun>(attention);
}
