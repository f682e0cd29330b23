// One top per unit, so that each can be synthesised, simulated and co-simulated on its own. A top loads the
// memories on chip from `before`, runs its unit once, and stores them to `after`, behind the unit's own
// output. The first four words of `before` say how much of each memory moves, and the unit's arguments.
#include "units.h"

#include "memories.h"

namespace edgemtl {
namespace {

struct Call {
  int stream;  // groups of 16 values of the residual stream
  int rows;    // words of every bank
  int pool;    // words of every bank
  int queue;   // words of every expert's tokens, and of its scores
  int output;  // words of the unit's own output
  int argument[11];
};

constexpr int kHead = 4;  // words of a call

template <typename T, int N>
void unpack(T (&values)[N], int first, const word_t& word) {
#pragma HLS inline
  constexpr int kBits = 8 * static_cast<int>(sizeof(T));
  for (int i = 0; i < 128 / kBits; ++i) {
#pragma HLS unroll
    values[first + i] = static_cast<T>(word.range(kBits * i + kBits - 1, kBits * i).to_uint64());
  }
}

template <typename T, int N>
word_t pack(const T (&values)[N], int first) {
#pragma HLS inline
  constexpr int kBits = 8 * static_cast<int>(sizeof(T));
  word_t word = 0;
  for (int i = 0; i < 128 / kBits; ++i) {
#pragma HLS unroll
    const uint64_t bits =
        static_cast<uint64_t>(values[first + i]) & ((static_cast<uint64_t>(1) << kBits) - 1);
    word.range(kBits * i + kBits - 1, kBits * i) = bits;
  }
  return word;
}

Call load(const word_t* before, Memory& memory) {
#pragma HLS inline off
  int32_t fields[16];
  for (int i = 0; i < 16; ++i) fields[i] = static_cast<int32_t>(field(before[i / 4], i % 4));
  Call call = {fields[0], fields[1], fields[2], fields[3], fields[4], {}};
  for (int i = 0; i < 11; ++i) call.argument[i] = fields[5 + i];
  int at = kHead;
  for (int g = 0; g < call.stream; ++g) {
    unpack(memory.stream[g], 0, before[at++]);
    unpack(memory.stream[g], 8, before[at++]);
  }
  for (int b = 0; b < kRowBanks; ++b)
    for (int w = 0; w < call.rows; ++w) unpack(memory.rows[b][w], 0, before[at++]);
  for (int b = 0; b < kRowBanks; ++b)
    for (int w = 0; w < call.pool; ++w) unpack(memory.pool[b][w], 0, before[at++]);
  for (int e = 0; e < kMaxExperts; ++e) {
    for (int w = 0; w < call.queue; ++w) unpack(memory.token[e], 8 * w, before[at++]);
    for (int w = 0; w < call.queue; ++w) unpack(memory.score[e], 8 * w, before[at++]);
  }
  unpack(memory.length, 0, before[at++]);
  unpack(memory.length, 8, before[at++]);
  return call;
}

void store(const Call& call, const Memory& memory, word_t* after) {
#pragma HLS inline off
  int at = call.output;
  for (int g = 0; g < call.stream; ++g) {
    after[at++] = pack(memory.stream[g], 0);
    after[at++] = pack(memory.stream[g], 8);
  }
  for (int b = 0; b < kRowBanks; ++b)
    for (int w = 0; w < call.rows; ++w) after[at++] = pack(memory.rows[b][w], 0);
  for (int b = 0; b < kRowBanks; ++b)
    for (int w = 0; w < call.pool; ++w) after[at++] = pack(memory.pool[b][w], 0);
  for (int e = 0; e < kMaxExperts; ++e) {
    for (int w = 0; w < call.queue; ++w) after[at++] = pack(memory.token[e], 8 * w);
    for (int w = 0; w < call.queue; ++w) after[at++] = pack(memory.score[e], 8 * w);
  }
  after[at++] = pack(memory.length, 0);
  after[at++] = pack(memory.length, 8);
}

// The units as calls; the arguments are those of the functions of the same names in csim/exports.cpp.
#define EDGEMTL_CALL EDGEMTL_WEIGHTS, const int a[11], Memory &memory, word_t *output

int call_linear(EDGEMTL_CALL) {
  static Job jobs[kMaxJobs];
  const bool gelu = a[5] == kToHidden || a[5] == kToStream;
  const uint32_t at = static_cast<uint32_t>(gelu ? kGeluQuads : 0);
  jobs[0] = {at, 0, a[0] != 0, 0, a[1], a[2], a[3], a[4], static_cast<Epilogue>(a[5]), -1, false};
  Ahead ahead = {false, 0};
  return linear(w0, w1, w2, w3, jobs, 1, nullptr, ahead, memory, output);
}

int call_norm(EDGEMTL_CALL) {
  (void)output;
  return layer_norm(w0, w1, w2, w3, 0, a[0], a[1], a[2], memory);
}

int call_attention(EDGEMTL_CALL) {
  (void)output;
  return attention(w0, w1, w2, w3, 0, a[0], a[1], a[2], memory);
}

int call_gate(EDGEMTL_CALL) {
  static Job jobs[kMaxJobs];
  jobs[0] = {3, 0, false, 0, a[0], a[1], 2 * kMaxExperts, 0, kLogits, -1, false};
  Ahead ahead = {false, 0};
  const int status = linear(w0, w1, w2, w3, jobs, 1, nullptr, ahead, memory, output);
  return status != kOk ? status : gate(w0, w1, w2, w3, 0, a[0], a[2], a[3], a[4] != 0, memory);
}

int call_experts(EDGEMTL_CALL) {
  static Job jobs[kMaxJobs];
  const int count = expert_jobs(0, static_cast<uint32_t>(a[0]), a[1], a[2], a[3], memory, jobs);
  Ahead ahead = {false, 0};
  return linear(w0, w1, w2, w3, jobs, count, nullptr, ahead, memory, output);
}

int call_depthwise(EDGEMTL_CALL) {
  (void)output;
  return depthwise(w0, w1, w2, w3, kGeluQuads, 0, a[0], a[1], a[2], a[3], memory);
}

int call_narrow(EDGEMTL_CALL) {
  (void)output;
  return narrow(w0, w1, w2, w3, 0, a[0], a[1], a[2], a[3], memory);
}

}  // namespace
}  // namespace edgemtl

// A top: its ports, the memories as in src/top.cpp, and the unit between the moves in and out.
// clang-format off
#define EDGEMTL_UNIT_TOP(NAME, UNIT)                                                                       \
  extern "C" int NAME(const edgemtl::word_t* w0, const edgemtl::word_t* w1, const edgemtl::word_t* w2,     \
                      const edgemtl::word_t* w3, const edgemtl::word_t* before, edgemtl::word_t* after) {  \
    _Pragma("HLS interface m_axi port = w0 bundle = hp0 offset = slave depth = 16384")                     \
    _Pragma("HLS interface m_axi port = w1 bundle = hp1 offset = slave depth = 16384")                     \
    _Pragma("HLS interface m_axi port = w2 bundle = hp2 offset = slave depth = 16384")                     \
    _Pragma("HLS interface m_axi port = w3 bundle = hp3 offset = slave depth = 16384")                     \
    _Pragma("HLS interface m_axi port = before bundle = hp0 offset = slave depth = 1024")                  \
    _Pragma("HLS interface m_axi port = after bundle = hp1 offset = slave depth = 4096")                   \
    _Pragma("HLS interface s_axilite port = return")                                                       \
    static edgemtl::Memory memory;                                                                         \
    EDGEMTL_MEMORIES                                                                                       \
    const edgemtl::Call call = edgemtl::load(before, memory);                                              \
    const int status = edgemtl::UNIT(w0, w1, w2, w3, call.argument, memory, after);                        \
    edgemtl::store(call, memory, after);                                                                   \
    return status;                                                                                         \
  }
// clang-format on

EDGEMTL_UNIT_TOP(edgemtl_unit_linear, call_linear)
EDGEMTL_UNIT_TOP(edgemtl_unit_norm, call_norm)
EDGEMTL_UNIT_TOP(edgemtl_unit_attention, call_attention)
EDGEMTL_UNIT_TOP(edgemtl_unit_gate, call_gate)
EDGEMTL_UNIT_TOP(edgemtl_unit_experts, call_experts)
EDGEMTL_UNIT_TOP(edgemtl_unit_depthwise, call_depthwise)
EDGEMTL_UNIT_TOP(edgemtl_unit_narrow, call_narrow)
