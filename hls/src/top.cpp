// The top level: checks a descriptor program completely, then runs it over one frame. The host switches tasks
// by the argument `task`, an index into the program's table of gates and heads; trunk and experts stay as
// they are.
#include "counters.h"
#include "memories.h"
#include "program.h"
#include "units.h"

namespace edgemtl {
namespace {

typedef uint32_t Record[kFields];
constexpr uint32_t kMaxRecords = 1 + kMaxTasks + kMaxOps;

// The whole program, read once, and its checksum: a word per four cycles, the checksum's chain being four
// long.
uint32_t read_program(const word_t* program, uint32_t words, Record* records) {
  uint32_t checksum = 0;
  for (uint32_t w = 0; w < words; ++w) {
#pragma HLS pipeline II = 4
    const word_t word = program[w];
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t value = field(word, static_cast<int>(i));
      const bool itself = 4 * w + i == kHChecksum;
      records[w / 4][w % 4 * 4 + i] = value;
      checksum = (checksum << 1 | checksum >> 31) + (itself ? 0 : value);
    }
  }
  return checksum;
}

bool in(uint32_t value, uint32_t low, uint32_t high) { return value >= low && value <= high; }

int read_shape(const uint32_t h[kFields], Shape& s) {
  if (!in(h[kHHeight], kPatch, 32768) || !in(h[kHWidth], kPatch, 32768) || h[kHHeight] % kPatch ||
      h[kHWidth] % kPatch)
    return kBadShape;
  s.height = static_cast<int>(h[kHHeight]);
  s.width = static_cast<int>(h[kHWidth]);
  s.rows = s.height / kPatch;
  s.cols = s.width / kPatch;
  if (s.rows * s.cols + 1 > kMaxTokens) return kBadShape;
  s.tokens = s.rows * s.cols + 1;
  if (!in(h[kHDim], 16, kMaxDim) || h[kHDim] % 16 || !in(h[kHHeads], 1, kMaxHeads) || h[kHDim] % h[kHHeads] ||
      h[kHDim] / h[kHHeads] > kMaxHeadWidth || h[kHDim] / h[kHHeads] % 16)
    return kBadShape;
  if (!in(h[kHExperts], 0, kMaxExperts) || !in(h[kHTopK], 1, kMaxTopK) || h[kHRenormalise] > 1 ||
      h[kHTokens] > 1)
    return kBadShape;
  if (!in(h[kHTile], 1, kMaxTile) || (h[kHTile] & (h[kHTile] - 1)) != 0 || !in(h[kHHeadDim], 16, kMaxDim) ||
      h[kHHeadDim] % 16)
    return kBadShape;
  s.dim = static_cast<int>(h[kHDim]);
  s.heads = static_cast<int>(h[kHHeads]);
  s.experts = static_cast<int>(h[kHExperts]);
  s.top_k = static_cast<int>(h[kHTopK]);
  s.renormalise = h[kHRenormalise] == 1;
  s.to_tokens = h[kHTokens] == 1;
  s.tile = static_cast<int>(h[kHTile]);
  s.shift = 0;
  while (1 << s.shift < s.tile) ++s.shift;
  s.head_dim = static_cast<int>(h[kHHeadDim]);
  s.pixels = s.rows * s.cols * s.tile * s.tile;
  if (s.tile * s.tile * s.head_dim > kMaxHidden || s.pixels * s.head_dim > kMaxStream ||
      row_groups(s.pixels) * s.head_dim > 16 * kPoolWords ||
      row_groups(s.tokens - 1) * kPatchValues > 16 * kPoolWords ||
      row_groups(s.tokens) * s.dim > 16 * kRowWords || row_groups(s.tokens) * 3 * s.dim > 16 * kPoolWords)
    return kBadShape;
  return kOk;
}

// Quads that a descriptor reads at `at`, and at `second`; the products stay far below 2^32.
int needs(const Shape& s, const Op& op, uint32_t& first, uint32_t& second) {
  second = 0;
  switch (op.code) {
    case kEmbed:
      first = (s.tokens * s.dim + 31) / 32;
      second = linear_quads(kPatchValues, s.dim);
      return kOk;
    case kNorm:
    case kHeadNorm:
      first = norm_quads(s.dim);
      return kOk;
    case kQkv:
      first = linear_quads(s.dim, 3 * s.dim);
      return kOk;
    case kAttend:
      first = attention_quads(s.dim);
      return kOk;
    case kProject:
      first = linear_quads(s.dim, s.dim);
      return kOk;
    case kMlp:
      first = mlp_quads(s.dim, op.hidden);
      return row_groups(s.tokens) * op.hidden <= 16 * kPoolWords ? kOk : kBadShape;
    case kGate:
      first = gate_quads(s.dim);
      return s.experts > 0 ? kOk : kBadProgram;
    case kExperts:
      first = mlp_quads(s.dim, op.hidden);
      if (s.experts < 1 || op.stride < first || op.stride > (1u << 24)) return kBadProgram;
      first = op.stride * (s.experts - 1) + first;
      return row_groups(s.tokens) * (s.dim + op.hidden) <= 16 * kPoolWords ? kOk : kBadShape;
    case kHeadProject:
      first = kGeluQuads + linear_quads(s.dim, s.tile * s.tile * s.head_dim);
      return kOk;
    case kStep:
      first = kGeluQuads + depthwise_quads(s.head_dim) + linear_quads(s.head_dim, s.head_dim);
      return kOk;
    case kOutput:
      first = narrow_quads(s.head_dim) + linear_quads(s.head_dim, s.channels);
      return s.to_tokens ? kBadProgram : kOk;
    case kTokens:
      first = 0;
      return s.to_tokens ? kOk : kBadProgram;
    default:
      return kBadProgram;
  }
}

// The products of a descriptor, all but the experts', which the queues decide. Returns how many.
int products(const Shape& s, const Op& op, Job jobs[kMaxJobs]) {
  const int grid = s.rows * s.cols, wide = s.tile * s.tile * s.head_dim;
  const uint32_t behind = op.at + kGeluQuads;
  switch (op.code) {
    case kEmbed:
      jobs[0] = {op.second, 0, true, 0, grid, kPatchValues, s.dim, 1, kAdd, -1, false};
      return 1;
    case kQkv:
      jobs[0] = {op.at, 0, false, 0, s.tokens, s.dim, 3 * s.dim, 0, kToQkv, -1, false};
      return 1;
    case kProject:
      jobs[0] = {op.at, 0, false, 0, s.tokens, s.dim, s.dim, 0, kAdd, -1, false};
      return 1;
    case kMlp: {
      const uint32_t second = behind + linear_quads(s.dim, op.hidden);
      jobs[0] = {behind, op.at, false, 0, s.tokens, s.dim, op.hidden, 0, kToHidden, -1, false};
      jobs[1] = {second, 0, true, 0, s.tokens, op.hidden, s.dim, 0, kAdd, -1, false};
      return 2;
    }
    case kGate:
      jobs[0] = {op.at + 3, 0, false, 0, s.tokens, s.dim, 2 * kMaxExperts, 0, kLogits, -1, false};
      return 1;
    case kHeadProject:
      jobs[0] = {behind, op.at, false, 0, grid, s.dim, wide, 0, kToStream, -1, false};
      return 1;
    case kStep: {
      const uint32_t point = behind + depthwise_quads(s.head_dim);
      jobs[0] = {point, 0, true, 0, s.pixels, s.head_dim, s.head_dim, 0, kAdd, -1, false};
      return 1;
    }
    case kOutput: {
      const uint32_t out = op.at + narrow_quads(s.head_dim);
      jobs[0] = {out, 0, true, 0, s.pixels, s.head_dim, s.channels, 0, kRaw, -1, false};
      return 1;
    }
    default:
      return 0;
  }
}

// The residual stream to DDR in the layout of a raw map of one line: all tokens' first 16 channels, and so
// on.
void write_tokens(const Shape& s, Memory& memory, word_t* output) {
  const int groups = s.dim / 16;
  memory.used.steps += static_cast<uint32_t>(groups * s.tokens * 2);
  memory.used.written += static_cast<uint32_t>(groups * s.tokens * 2);
  int g = 0, t = 0;
  for (int w = 0; w < groups * s.tokens * 2; ++w) {
#pragma HLS pipeline II = 1
    word_t word = 0;
    for (int i = 0; i < 8; ++i)
      word.range(16 * i + 15, 16 * i) = static_cast<uint16_t>(memory.stream[t * groups + g][w % 2 * 8 + i]);
    output[w] = word;
    if (w % 2 == 1 && ++t == s.tokens) {
      t = 0;
      ++g;
    }
  }
}

// Runs descriptor i; the linear unit is told the first product of those that follow, so that its first tile
// is there when they begin, whatever runs in between.
int run(EDGEMTL_WEIGHTS, const Shape& s, const Op* list, int i, int ops, const word_t* pixels, word_t* output,
        const volatile uint32_t* cycle, Counters& counters, Ahead& ahead, Memory& memory) {
  static Job jobs[kMaxJobs], later[kMaxJobs];
  const Op& op = list[i];
  int status = kOk;
  switch (op.code) {  // what comes before the products
    case kEmbed:
      load_position(w0, w1, w2, w3, op.at, s.tokens * s.dim, memory);
      patches(pixels, s.height, s.width, memory);
      book(kEmbedUnit, cycle, counters, memory);
      break;
    case kNorm:
    case kHeadNorm: {
      const bool head = op.code == kHeadNorm;
      status =
          layer_norm(w0, w1, w2, w3, op.at, head ? 1 : 0, head ? s.rows * s.cols : s.tokens, s.dim, memory);
      book(kNormUnit, cycle, counters, memory);
      return status;
    }
    case kAttend:
      status = attention(w0, w1, w2, w3, op.at, s.tokens, s.dim, s.heads, memory);
      book(kAttentionUnit, cycle, counters, memory);
      return status;
    case kTokens:
      write_tokens(s, memory, output);
      book(kTokensUnit, cycle, counters, memory);
      return kOk;
    case kStep:
      status =
          depthwise(w0, w1, w2, w3, op.at + kGeluQuads, op.at, s.rows, s.cols, s.shift, s.head_dim, memory);
      book(kDepthwiseUnit, cycle, counters, memory);
      break;
    case kOutput:
      status = narrow(w0, w1, w2, w3, op.at, s.rows, s.cols, s.shift, s.head_dim, memory);
      book(kNarrowUnit, cycle, counters, memory);
      break;
    default:
      break;
  }
  if (status != kOk) return status;
  const int count = op.code == kExperts
                        ? expert_jobs(op.at, op.stride, s.experts, s.dim, op.hidden, memory, jobs)
                        : products(s, op, jobs);
  bool found = false;
  for (int j = i + 1; j < ops && !found && list[j].code != kExperts; ++j)
    found = products(s, list[j], later) > 0;
  status = linear(w0, w1, w2, w3, jobs, count, found ? &later[0] : nullptr, ahead, memory, output);
  book(kLinearUnit, cycle, counters, memory);
  if (status != kOk || op.code != kGate) return status;
  status = gate(w0, w1, w2, w3, op.at, s.tokens, s.experts, s.top_k, s.renormalise, memory);
  book(kGateUnit, cycle, counters, memory);
  return status;
}

// Words of the output: 16 channels at a time, each group from a fresh word.
uint32_t output_words(const Shape& s) {
  const uint32_t whole = s.channels / 16, rest = s.channels % 16;
  const uint32_t rows = s.to_tokens ? s.tokens : s.pixels;
  return whole * (rows * 2) + (rest * rows + 7) / 8;
}

}  // namespace
}  // namespace edgemtl

// One frame. The weight image lies in four banks of `quads` words; pixels [height][width][3] bytes; the raw
// map is INT16; kCounterWords words of counters follow it into their own buffer. `cycle` is a wire from a
// counter that runs free beside the kernel. Returns a Status; nothing is written unless the whole program is
// sound.
extern "C" int edgemtl_top(EDGEMTL_ARGUMENTS) {
// depth is for C/RTL co-simulation alone: words that hls/vitis/testbench.cpp puts behind each port.
#pragma HLS interface m_axi port = w0 bundle = hp0 offset = slave depth = 16384 max_read_burst_length = \
    16 num_read_outstanding = 16
#pragma HLS interface m_axi port = w1 bundle = hp1 offset = slave depth = 16384 max_read_burst_length = \
    16 num_read_outstanding = 16
#pragma HLS interface m_axi port = w2 bundle = hp2 offset = slave depth = 16384 max_read_burst_length = \
    16 num_read_outstanding = 16
#pragma HLS interface m_axi port = w3 bundle = hp3 offset = slave depth = 16384 max_read_burst_length = \
    16 num_read_outstanding = 16
#pragma HLS interface m_axi port = program bundle = hp0 offset = slave depth = 1024
#pragma HLS interface m_axi port = pixels bundle = hp1 offset = slave depth = 4096
#pragma HLS interface m_axi port = output bundle = hp2 offset = slave depth = 4096
#pragma HLS interface m_axi port = counters bundle = hp3 offset = slave depth = 18
#pragma HLS interface ap_none port = cycle
#pragma HLS interface s_axilite port = quads
#pragma HLS interface s_axilite port = program_words
#pragma HLS interface s_axilite port = pixel_words
#pragma HLS interface s_axilite port = output_words
#pragma HLS interface s_axilite port = task
#pragma HLS interface s_axilite port = return
  using namespace edgemtl;
  static Memory memory;
  EDGEMTL_MEMORIES

  static Counters counted;
#pragma HLS disaggregate variable = counted
#pragma HLS bind_storage variable = counted.value type = ram_2p impl = lutram
  begin_counters(cycle, counted, memory);
  if (program_words < 4 || program_words > 4 * kMaxRecords || program_words % 4 != 0) return kBadProgram;
  static Record records[kMaxRecords];
#pragma HLS array_reshape variable = records cyclic factor = 4 dim = 2
  const uint32_t checksum = read_program(program, program_words, records);
  const uint32_t* const header = records[0];
  if (header[kHMagic] != kProgramMagic) return kBadMagic;
  if (header[kHVersion] != kProgramVersion) return kBadVersion;
  const uint32_t ops = header[kHOps], tasks = header[kHTasks];
  if (!in(ops, 1, kMaxOps) || !in(tasks, 1, kMaxTasks) || program_words != 4 * (1 + tasks + ops))
    return kBadProgram;
  if (checksum != header[kHChecksum]) return kBadChecksum;
  if (header[kHQuads] != quads) return kBadProgram;
  Shape shape;
  int status = read_shape(header, shape);
  if (status != kOk) return status;
  if (task >= tasks) return kBadTask;
  const uint32_t* const entry = records[1 + task];
  if (shape.to_tokens ? entry[kTChannels] != header[kHDim] : !in(entry[kTChannels], 1, kMaxChannels))
    return kBadShape;
  if (entry[kTBase] > quads || entry[kTQuads] > quads - entry[kTBase]) return kBadProgram;
  shape.channels = static_cast<int>(entry[kTChannels]);
  if (pixel_words != static_cast<uint32_t>(shape.height * (shape.width / 16) * 3) ||
      output_words != edgemtl::output_words(shape))
    return kBadBuffer;

  static Op list[kMaxOps];
  for (uint32_t i = 0; i < ops; ++i) {
    const uint32_t* const fields = records[1 + tasks + i];
    Op& op = list[i];
    op.code = fields[kOCode];
    if (op.code == kEnd) return kBadProgram;
    const bool relative = fields[kORelative] == 1;
    const uint32_t limit = relative ? entry[kTQuads] : quads, base = relative ? entry[kTBase] : 0;
    const bool wide = op.code == kMlp || op.code == kExperts;
    if (fields[kORelative] > 1 || (wide && (!in(fields[kOHidden], 16, kMaxHidden) || fields[kOHidden] % 16)))
      return kBadProgram;
    op.hidden = static_cast<int>(fields[kOHidden]);
    op.stride = fields[kOStride];
    uint32_t first = 0, second = 0;
    status = needs(shape, op, first, second);
    if (status != kOk) return status;
    if (first > limit || fields[kOAt] > limit - first || second > limit || fields[kOSecond] > limit - second)
      return kBadProgram;
    op.at = base + fields[kOAt];
    op.second = base + fields[kOSecond];
  }

  for (int e = 0; e < kMaxExperts; ++e) memory.length[e] = 0;
  memory.used = {4 * program_words, program_words, 0};
  book(kProgramUnit, cycle, counted, memory);
  Ahead ahead = {false, 0};
  for (int i = 0; i < static_cast<int>(ops) && status == kOk; ++i)
    status = run(w0, w1, w2, w3, shape, list, i, static_cast<int>(ops), pixels, output, cycle, counted, ahead,
                 memory);
  write_counters(counted, counters);
  return status;
}
