// Test bench for Vitis' C simulation and C/RTL co-simulation: replays files of vectors through one top and
// compares every word. tests/hls/vectors.py writes the files; the tests compile this with g++.
//
// A file: 16 32-bit fields (magic "EMTV", version, expected status, task, then counts of 128-bit words: per
// bank, before, pixels, after), then the words themselves: four banks, what goes in, pixels, what must come
// out. `before` is the descriptor program for the whole accelerator, the memories on chip for a unit.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "counters.h"
#include "types.h"

using edgemtl::word_t;

#ifdef EDGEMTL_FRAME
extern "C" int edgemtl_top(EDGEMTL_ARGUMENTS);
#else
extern "C" int EDGEMTL_UNIT(const word_t* w0, const word_t* w1, const word_t* w2, const word_t* w3,
                            const word_t* before, word_t* after);
#endif

namespace {

typedef std::vector<word_t> Words;

constexpr uint32_t kVectorMagic = 0x56544d45, kVectorVersion = 1, kMostWords = 1u << 24;
// Depths of the ports in co-simulation, as the pragmas of the tops give them.
constexpr uint32_t kBankDepth = 16384, kBeforeDepth = 1024, kPixelDepth = 4096, kAfterDepth = 4096;

bool read_words(std::FILE* file, uint32_t count, uint32_t depth, Words& words) {
  words.assign(std::max(count, depth), word_t(0));
  for (uint32_t i = 0; i < count; ++i) {
    unsigned char bytes[16];
    if (std::fread(bytes, 1, 16, file) != 16) return false;
    for (int b = 0; b < 16; ++b) words[i].range(8 * b + 7, 8 * b) = bytes[b];
  }
  return true;
}

bool same(const word_t& a, const word_t& b) {
  for (int i = 0; i < 128; i += 32)
    if (edgemtl::field(a, i / 32) != edgemtl::field(b, i / 32)) return false;
  return true;
}

// Number of faults of one file, 1 for a file that cannot be read.
int replay(const char* name) {
  std::FILE* file = std::fopen(name, "rb");
  if (!file) {
    std::printf("FAIL %s: cannot be opened\n", name);
    return 1;
  }
  Words head;
  bool whole = read_words(file, 4, 0, head);
  uint32_t f[16];
  for (int i = 0; i < 16; ++i) f[i] = edgemtl::field(head[i / 4], i % 4);
  whole = whole && f[0] == kVectorMagic && f[1] == kVectorVersion;
  const uint32_t status = f[2], task = f[3], banks = f[4], before = f[5], pixels = f[6], after = f[7];
  for (int i = 4; i < 8; ++i) whole = whole && f[i] <= kMostWords;
  Words w[4], in, frame, want;
  for (int b = 0; b < 4 && whole; ++b) whole = read_words(file, banks, kBankDepth, w[b]);
  whole = whole && read_words(file, before, kBeforeDepth, in) &&
          read_words(file, pixels, kPixelDepth, frame) && read_words(file, after, kAfterDepth, want);
  std::fclose(file);
  if (!whole) {
    std::printf("FAIL %s: is no file of vectors, or is cut short\n", name);
    return 1;
  }
  if (banks > kBankDepth || before > kBeforeDepth || pixels > kPixelDepth || after > kAfterDepth)
    std::printf("note: %s is too large for co-simulation, whose ports are shorter\n", name);
  Words got(want.size(), word_t(0));
#ifdef EDGEMTL_FRAME
  Words counters(edgemtl::kCounterWords, word_t(0));
  const volatile uint32_t cycle = 0;
  const int given = edgemtl_top(w[0].data(), w[1].data(), w[2].data(), w[3].data(), banks, in.data(), before,
                                frame.data(), pixels, got.data(), after, task, counters.data(), &cycle);
#else
  const int given = EDGEMTL_UNIT(w[0].data(), w[1].data(), w[2].data(), w[3].data(), in.data(), got.data());
  (void)task;
#endif
  int faults = given != static_cast<int>(status);
  if (faults) std::printf("FAIL %s: status %d, expected %u\n", name, given, status);
  for (uint32_t i = 0; i < after; ++i) {
    if (same(got[i], want[i])) continue;
    if (++faults < 10) std::printf("FAIL %s: word %u differs\n", name, i);
  }
  if (!faults) std::printf("ok %s: status %u, %u words equal\n", name, status, after);
  return faults;
}

}  // namespace

int main(int count, char** names) {
  if (count < 2) {
    std::printf("FAIL: give files of vectors\n");
    return 1;
  }
  int faults = 0;
  for (int i = 1; i < count; ++i) faults += replay(names[i]);
  return faults ? 1 : 0;
}
