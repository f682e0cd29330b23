// Made from edgemtl/fpga/contract.py, which says what each is, and edgemtl/graph/integer: make contract.
// clang-format off
#ifndef EDGEMTL_HLS_CONTRACT_H
#define EDGEMTL_HLS_CONTRACT_H

#include <cstdint>

namespace edgemtl {

constexpr int kMaxTokens = 1025;
constexpr int kMaxDim = 384;
constexpr int kMaxHidden = 1536;
constexpr int kMaxHeads = 8;
constexpr int kMaxHeadWidth = 64;
constexpr int kMaxBlocks = 32;
constexpr int kMaxExperts = 16;
constexpr int kMaxTopK = 4;
constexpr int kMaxTasks = 8;
constexpr int kMaxChannels = 256;
constexpr int kMaxStream = 524288;
constexpr int kMaxTile = 16;
constexpr int kMaxOps = 512;
constexpr int kPatch = 16;
constexpr int kLanes = 16;
constexpr int kLanesRow = 8;
constexpr int kLanesQuery = 4;
constexpr int kLanesLeave = 4;
constexpr int kTileOut = 64;
constexpr int kTileBlocks = 384;
constexpr int kRowWords = 2048;
constexpr int kPoolWords = 8192;
constexpr int kValueSkew = 4;
constexpr int kPorts = 4;
constexpr int kWord = 16;
constexpr uint32_t kProgramMagic = 0x4c544d45;
constexpr int kProgramVersion = 2;
constexpr int kFields = 16;
constexpr int kCounterWidth = 8;
constexpr int kRegisterVersion = 2;
constexpr int kMinShift = 1;
constexpr int kMaxShift = 46;
constexpr int kBiasLimit = 33554431;
constexpr int kScoreBits = 15;
constexpr int kGuardBits = 8;
constexpr int kReciprocalBits = 42;
constexpr int kGeluEntries = 512;
constexpr int kGeluFraction = 4;
constexpr uint16_t kExp2[256] = {
  32768, 32679, 32591, 32503, 32415, 32327, 32240, 32153, 32066, 31979, 31893, 31806, 31720, 31635, 31549,
  31464, 31379, 31294, 31209, 31125, 31041, 30957, 30873, 30790, 30706, 30623, 30541, 30458, 30376, 30293,
  30212, 30130, 30048, 29967, 29886, 29805, 29725, 29644, 29564, 29484, 29405, 29325, 29246, 29167, 29088,
  29009, 28931, 28852, 28774, 28697, 28619, 28542, 28464, 28388, 28311, 28234, 28158, 28082, 28006, 27930,
  27855, 27779, 27704, 27629, 27554, 27480, 27406, 27332, 27258, 27184, 27110, 27037, 26964, 26891, 26818,
  26746, 26674, 26601, 26530, 26458, 26386, 26315, 26244, 26173, 26102, 26031, 25961, 25891, 25821, 25751,
  25681, 25612, 25543, 25474, 25405, 25336, 25268, 25199, 25131, 25063, 24995, 24928, 24860, 24793, 24726,
  24659, 24593, 24526, 24460, 24394, 24328, 24262, 24196, 24131, 24066, 24001, 23936, 23871, 23806, 23742,
  23678, 23614, 23550, 23486, 23423, 23359, 23296, 23233, 23170, 23108, 23045, 22983, 22921, 22859, 22797,
  22735, 22674, 22613, 22552, 22491, 22430, 22369, 22309, 22248, 22188, 22128, 22068, 22009, 21949, 21890,
  21831, 21772, 21713, 21654, 21595, 21537, 21479, 21421, 21363, 21305, 21247, 21190, 21133, 21076, 21019,
  20962, 20905, 20849, 20792, 20736, 20680, 20624, 20568, 20513, 20457, 20402, 20347, 20292, 20237, 20182,
  20127, 20073, 20019, 19965, 19911, 19857, 19803, 19750, 19696, 19643, 19590, 19537, 19484, 19431, 19379,
  19326, 19274, 19222, 19170, 19118, 19066, 19015, 18963, 18912, 18861, 18810, 18759, 18708, 18658, 18607,
  18557, 18507, 18457, 18407, 18357, 18308, 18258, 18209, 18160, 18110, 18061, 18013, 17964, 17915, 17867,
  17819, 17770, 17722, 17674, 17627, 17579, 17531, 17484, 17437, 17390, 17343, 17296, 17249, 17202, 17156,
  17109, 17063, 17017, 16971, 16925, 16879, 16834, 16788, 16743, 16697, 16652, 16607, 16562, 16518, 16473,
  16428};

enum HeaderField {
  kHMagic = 0,
  kHVersion = 1,
  kHOps = 2,
  kHTasks = 3,
  kHChecksum = 4,
  kHHeight = 5,
  kHWidth = 6,
  kHDim = 7,
  kHHeads = 8,
  kHExperts = 9,
  kHTopK = 10,
  kHRenormalise = 11,
  kHTile = 12,
  kHHeadDim = 13,
  kHQuads = 14,
  kHTokens = 15,
};

enum TaskField {
  kTBase = 0,
  kTQuads = 1,
  kTChannels = 2,
};

enum OpField {
  kOCode = 0,
  kORelative = 1,
  kOAt = 2,
  kOSecond = 3,
  kOHidden = 4,
  kOStride = 5,
};

enum OpCode {
  kEnd = 0,
  kEmbed = 1,
  kNorm = 2,
  kQkv = 3,
  kAttend = 4,
  kProject = 5,
  kMlp = 6,
  kGate = 7,
  kExperts = 8,
  kHeadNorm = 9,
  kHeadProject = 10,
  kStep = 11,
  kOutput = 12,
  kTokens = 13,
};

enum Epilogue {
  kToQkv = 0,
  kToHidden = 1,
  kAdd = 2,
  kScored = 3,
  kToStream = 4,
  kRaw = 5,
  kLogits = 6,
};

enum Status {
  kOk = 0,
  kBadShape = 1,
  kBadTable = 2,
  kBadMagic = 3,
  kBadVersion = 4,
  kBadChecksum = 5,
  kBadProgram = 6,
  kBadTask = 7,
  kBadBuffer = 8,
  kDeadlock = 9,
};

enum CounterUnit {
  kProgramUnit = 0,
  kEmbedUnit = 1,
  kNormUnit = 2,
  kLinearUnit = 3,
  kAttentionUnit = 4,
  kGateUnit = 5,
  kDepthwiseUnit = 6,
  kNarrowUnit = 7,
  kTokensUnit = 8,
  kCounterUnits = 9,
};

enum CounterField {
  kCCalls = 0,
  kCSteps = 1,
  kCCycles = 2,
  kCRead = 3,
  kCWritten = 4,
};

}  // namespace edgemtl

// The arguments of edgemtl_top.
#define EDGEMTL_ARGUMENTS \
  const edgemtl::word_t* w0, \
  const edgemtl::word_t* w1, \
  const edgemtl::word_t* w2, \
  const edgemtl::word_t* w3, \
  uint32_t quads, \
  const edgemtl::word_t* program, \
  uint32_t program_words, \
  const edgemtl::word_t* pixels, \
  uint32_t pixel_words, \
  edgemtl::word_t* output, \
  uint32_t output_words, \
  uint32_t task, \
  edgemtl::word_t* counters, \
  const volatile uint32_t* cycle

#endif
