// The top level: checks a descriptor program completely, then runs it over one frame. The host switches tasks
// by the argument `task`, an index into the program's table of gates and heads; trunk and experts stay as
// they are.
#include "program.h"
#include "units.h"

namespace edgemtl {
namespace {

void read_fields(const word_t* program, int record, uint32_t fields[kFields]) {
#pragma HLS inline
  for (int i = 0; i < kFields; ++i) {
#pragma HLS pipeline II = 1
    fields[i] = field(program[record * 4 + i / 4], i % 4);
  }
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
  if (!in(h[kHExperts], 0, kMaxExperts) || !in(h[kHTopK], 1, kMaxTopK) || h[kHRenormalise] > 1)
    return kBadShape;
  if (!in(h[kHTile], 1, kMaxTile) || !in(h[kHHeadDim], 16, kMaxDim) || h[kHHeadDim] % 16) return kBadShape;
  s.dim = static_cast<int>(h[kHDim]);
  s.heads = static_cast<int>(h[kHHeads]);
  s.experts = static_cast<int>(h[kHExperts]);
  s.top_k = static_cast<int>(h[kHTopK]);
  s.renormalise = h[kHRenormalise] == 1;
  s.tile = static_cast<int>(h[kHTile]);
  s.head_dim = static_cast<int>(h[kHHeadDim]);
  s.pixels = s.rows * s.cols * s.tile * s.tile;
  if (s.tile * s.tile * s.head_dim > kMaxHidden || s.pixels * s.head_dim > kMaxStream ||
      s.pixels * share(s.head_dim) > kBankSize)
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
      return kOk;
    case kGate:
      first = gate_quads(s.dim);
      return s.experts > 0 ? kOk : kBadProgram;
    case kExperts:
      first = mlp_quads(s.dim, op.hidden);
      if (s.experts < 1 || op.stride < first || op.stride > (1u << 24)) return kBadProgram;
      first = op.stride * (s.experts - 1) + first;
      return kOk;
    case kHeadProject:
      first = kGeluQuads + linear_quads(s.dim, s.tile * s.tile * s.head_dim);
      return kOk;
    case kStep:
      first = kGeluQuads + depthwise_quads(s.head_dim) + linear_quads(s.head_dim, s.head_dim);
      return kOk;
    case kOutput:
      first = narrow_quads(s.head_dim) + linear_quads(s.head_dim, s.channels);
      return kOk;
    default:
      return kBadProgram;
  }
}

int run(EDGEMTL_WEIGHTS, const Shape& s, const Op& op, const word_t* pixels, word_t* output, Memory& memory) {
  const int grid = s.rows * s.cols, wide = s.tile * s.tile * s.head_dim;
  static Job jobs[kMaxJobs];
  switch (op.code) {
    case kEmbed:
      load_position(w0, w1, w2, w3, op.at, s.tokens * s.dim, memory);
      patches(pixels, s.height, s.width, memory);
      jobs[0] = {op.second, 0, true, grid, kPatchValues, s.dim, 1, kAdd, -1, false, 1, 1};
      return linear(w0, w1, w2, w3, jobs, 1, memory, output);
    case kNorm:
      return layer_norm(w0, w1, w2, w3, op.at, 0, s.tokens, s.dim, memory);
    case kQkv:
      jobs[0] = {op.at, 0, false, s.tokens, s.dim, 3 * s.dim, 0, kToQkv, -1, false, 1, 1};
      return linear(w0, w1, w2, w3, jobs, 1, memory, output);
    case kAttend:
      return attention(w0, w1, w2, w3, op.at, s.tokens, s.dim, s.heads, memory);
    case kProject:
      jobs[0] = {op.at, 0, false, s.tokens, s.dim, s.dim, 0, kAdd, -1, false, 1, 1};
      return linear(w0, w1, w2, w3, jobs, 1, memory, output);
    case kMlp:
      jobs[0] = {op.at + kGeluQuads, op.at, false, s.tokens, s.dim, op.hidden, 0, kToHidden, -1, false, 1, 1};
      jobs[1] = {jobs[0].at + linear_quads(s.dim, op.hidden),
                 0,
                 true,
                 s.tokens,
                 op.hidden,
                 s.dim,
                 0,
                 kAdd,
                 -1,
                 false,
                 1,
                 1};
      return linear(w0, w1, w2, w3, jobs, 2, memory, output);
    case kGate:
      return gate(w0, w1, w2, w3, op.at, s.tokens, s.dim, s.experts, s.top_k, s.renormalise, memory);
    case kExperts:
      return experts(w0, w1, w2, w3, op.at, op.stride, s.experts, s.dim, op.hidden, memory);
    case kHeadNorm:
      return layer_norm(w0, w1, w2, w3, op.at, 1, grid, s.dim, memory);
    case kHeadProject:
      jobs[0] = {op.at + kGeluQuads, op.at, false, grid, s.dim, wide, 0, kToStream, -1, false, 1, 1};
      return linear(w0, w1, w2, w3, jobs, 1, memory, output);
    case kStep: {
      const uint32_t taps = op.at + kGeluQuads;
      const int status = depthwise(w0, w1, w2, w3, taps, op.at, s.rows, s.cols, s.tile, s.head_dim, memory);
      if (status != kOk) return status;
      jobs[0] = {taps + depthwise_quads(s.head_dim),
                 0,
                 true,
                 s.pixels,
                 s.head_dim,
                 s.head_dim,
                 0,
                 kAdd,
                 -1,
                 false,
                 1,
                 1};
      return linear(w0, w1, w2, w3, jobs, 1, memory, output);
    }
    case kOutput: {
      const int status = narrow(w0, w1, w2, w3, op.at, s.pixels, s.head_dim, memory);
      if (status != kOk) return status;
      jobs[0] = {op.at + narrow_quads(s.head_dim),
                 0,
                 true,
                 s.pixels,
                 s.head_dim,
                 s.channels,
                 0,
                 kRaw,
                 -1,
                 false,
                 s.tile,
                 s.cols};
      return linear(w0, w1, w2, w3, jobs, 1, memory, output);
    }
    default:
      return kBadProgram;
  }
}

// Words of the raw map: 16 channels at a time, each group from a fresh word.
uint32_t output_words(const Shape& s) {
  const uint32_t whole = s.channels / 16, rest = s.channels % 16;
  return whole * (s.pixels * 2) + (rest * s.pixels + 7) / 8;
}

}  // namespace
}  // namespace edgemtl

// One frame. The weight image lies in four banks of `quads` words; pixels [height][width][3] bytes; the raw
// map is INT16. Returns a Status; nothing is written unless the whole program is sound.
extern "C" int edgemtl_top(const edgemtl::word_t* w0, const edgemtl::word_t* w1, const edgemtl::word_t* w2,
                           const edgemtl::word_t* w3, uint32_t quads, const edgemtl::word_t* program,
                           uint32_t program_words, const edgemtl::word_t* pixels, uint32_t pixel_words,
                           edgemtl::word_t* output, uint32_t output_words, uint32_t task) {
#pragma HLS interface m_axi port = w0 bundle = hp0 offset = slave max_read_burst_length = \
    16 num_read_outstanding = 16
#pragma HLS interface m_axi port = w1 bundle = hp1 offset = slave max_read_burst_length = \
    16 num_read_outstanding = 16
#pragma HLS interface m_axi port = w2 bundle = hp2 offset = slave max_read_burst_length = \
    16 num_read_outstanding = 16
#pragma HLS interface m_axi port = w3 bundle = hp3 offset = slave max_read_burst_length = \
    16 num_read_outstanding = 16
#pragma HLS interface m_axi port = program bundle = hp0 offset = slave
#pragma HLS interface m_axi port = pixels bundle = hp1 offset = slave
#pragma HLS interface m_axi port = output bundle = hp2 offset = slave
#pragma HLS interface s_axilite port = return
  using namespace edgemtl;
  static Memory memory;
#pragma HLS disaggregate variable = memory
#pragma HLS bind_storage variable = memory.stream type = ram_2p impl = uram
#pragma HLS bind_storage variable = memory.pool type = ram_2p impl = uram
#pragma HLS array_partition variable = memory.pool dim = 1 complete
#pragma HLS array_reshape variable = memory.pool dim = 2 cyclic factor = 16
#pragma HLS array_reshape variable = memory.rows cyclic factor = 16
#pragma HLS array_reshape variable = memory.stream cyclic factor = 16

  if (program_words < 4) return kBadProgram;
  uint32_t header[kFields];
  read_fields(program, 0, header);
  if (header[kHMagic] != kMagic) return kBadMagic;
  if (header[kHVersion] != kVersion) return kBadVersion;
  const uint32_t ops = header[kHOps], tasks = header[kHTasks];
  if (!in(ops, 1, kMaxOps) || !in(tasks, 1, kMaxTasks) || program_words != 4 * (1 + tasks + ops))
    return kBadProgram;
  uint32_t checksum = 0;
  for (uint32_t record = 0; record < 1 + tasks + ops; ++record) {
    uint32_t fields[kFields];
    read_fields(program, static_cast<int>(record), fields);
    for (int i = 0; i < kFields; ++i) {
      const bool itself = record == 0 && i == kHChecksum;
      checksum = (checksum << 1 | checksum >> 31) + (itself ? 0 : fields[i]);
    }
  }
  if (checksum != header[kHChecksum]) return kBadChecksum;
  if (header[kHQuads] != quads) return kBadProgram;
  Shape shape;
  int status = read_shape(header, shape);
  if (status != kOk) return status;
  if (task >= tasks) return kBadTask;
  uint32_t entry[kFields];
  read_fields(program, static_cast<int>(1 + task), entry);
  if (!in(entry[kTChannels], 1, kMaxChannels)) return kBadShape;
  if (entry[kTBase] > quads || entry[kTQuads] > quads - entry[kTBase]) return kBadProgram;
  shape.channels = static_cast<int>(entry[kTChannels]);
  if (pixel_words != static_cast<uint32_t>(shape.height * (shape.width / 16) * 3) ||
      output_words != edgemtl::output_words(shape))
    return kBadBuffer;

  static Op list[kMaxOps];
  for (uint32_t i = 0; i < ops; ++i) {
    uint32_t fields[kFields];
    read_fields(program, static_cast<int>(1 + tasks + i), fields);
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
  for (uint32_t i = 0; i < ops && status == kOk; ++i)
    status = run(w0, w1, w2, w3, shape, list[i], pixels, output, memory);
  return status;
}
