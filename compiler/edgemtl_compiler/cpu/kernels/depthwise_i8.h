// The depthwise step between INT8 layers: codes of one byte in, exact sums, codes of the next layer out.
//
// What it reads are levels, 0..127 for 0..6, which is all that ReLU6 leaves. A channel's taps are INT8 of a
// scale by which neither the positive nor the negative ones add up to more than 258, so that a sum is below
// 2^15 in magnitude whatever the levels: 16 bits hold it, on the way it may wrap. Rounding a tap hands its
// error on to the next one, so that a channel's taps keep their sum: neighbouring pixels are alike.
#pragma once

#include "convolution.h"
#include "gemm_i8.h"

namespace edgemtl {
namespace {

constexpr int kMostTaps = 128, kTapsSum = 258;

// A step takes kBlock channels of kJoined lines, which are joined channel by channel, in kParts vectors.
#if defined(__AVX512VNNI__)
constexpr int kBlock = 64, kJoined = 4, kParts = 4;
using Tap = int8_t;
using Part = __m512i;

inline void join(const uint8_t* const* lines, ptrdiff_t at, Part (&out)[kParts]) {
  auto line = [&](int i) { return _mm512_loadu_si512(lines[i] + at); };
  const __m512i a = line(0), b = line(1), c = line(2), d = line(3);
  const __m512i first[2] = {_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b)};
  const __m512i second[2] = {_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d)};
  out[0] = _mm512_unpacklo_epi16(first[0], second[0]);
  out[1] = _mm512_unpackhi_epi16(first[0], second[0]);
  out[2] = _mm512_unpacklo_epi16(first[1], second[1]);
  out[3] = _mm512_unpackhi_epi16(first[1], second[1]);
}

inline Part add(Part sum, Part levels, const Tap* taps) {
  return _mm512_dpbusd_epi32(sum, levels, _mm512_loadu_si512(taps));
}
#elif defined(__AVX2__)
constexpr int kBlock = 32, kJoined = 2, kParts = 2;
using Tap = int8_t;
using Part = __m256i;

inline void join(const uint8_t* const* lines, ptrdiff_t at, Part (&out)[kParts]) {
  auto line = [&](int i) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lines[i] + at)); };
  const __m256i a = line(0), b = line(1);
  out[0] = _mm256_unpacklo_epi8(a, b);
  out[1] = _mm256_unpackhi_epi8(a, b);
}

inline Part add(Part sum, Part levels, const Tap* taps) {
  const __m256i weights = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(taps));
  return _mm256_add_epi16(sum, _mm256_maddubs_epi16(levels, weights));
}
#else
constexpr int kBlock = 16, kJoined = 1, kParts = 1;
using Tap = uint16_t;
typedef uint16_t Part __attribute__((vector_size(2 * kBlock)));

inline void join(const uint8_t* const* lines, ptrdiff_t at, Part (&out)[kParts]) {
  typedef uint8_t Bytes __attribute__((vector_size(kBlock)));
  Bytes bytes;
  std::memcpy(&bytes, lines[0] + at, sizeof bytes);
  out[0] = __builtin_convertvector(bytes, Part);
}

inline Part add(Part sum, Part levels, const Tap* taps) {
  Part weights;
  std::memcpy(&weights, taps, sizeof weights);
  return sum + levels * weights;
}
#endif
constexpr int kStepTaps = kJoined * kBlock;  // of one column of a step
constexpr bool kInOrder = kParts < 4;  // scales and biases lie in the order of the channels, else of the sums

// Writes the next layer's codes of sums: sum * scale + bias, in its steps and rounded.
inline void finish(const Part (&sums)[kParts], const float* scale, const float* bias, Code* out) {
#if defined(__AVX512VNNI__)
  auto whole = [&](int i) {
    const Vec v = __builtin_convertvector((IntVec)sums[i], Vec) * load(scale + i * 16) + load(bias + i * 16);
    return _mm512_maskz_cvtps_epi32(0xffff, (__m512)minimum(splat(512.0f), v));
  };
  const __m512i words[2] = {_mm512_packs_epi32(whole(0), whole(1)), _mm512_packs_epi32(whole(2), whole(3))};
  const __m512i bytes = _mm512_packus_epi16(words[0], words[1]);
  _mm512_storeu_si512(out, _mm512_max_epu8(bytes, _mm512_set1_epi8(kCodeOffset - 127)));
#elif defined(__AVX2__) && !defined(__AVX512F__) && !defined(__AVXVNNI__)
  auto whole = [&](int i, __m128i narrow) {
    const Vec v = __builtin_convertvector((IntVec)_mm256_cvtepi16_epi32(narrow), Vec);
    return _mm256_cvtps_epi32((__m256)minimum(splat(512.0f), v * load(scale + i * 8) + load(bias + i * 8)));
  };
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const __m128i narrow[2] = {i ? _mm256_extracti128_si256(sums[0], 1) : _mm256_castsi256_si128(sums[0]),
                               i ? _mm256_extracti128_si256(sums[1], 1) : _mm256_castsi256_si128(sums[1])};
    __m256i codes = _mm256_packs_epi32(whole(2 * i, narrow[0]), whole(2 * i + 1, narrow[1]));
    codes = _mm256_max_epi16(_mm256_permute4x64_epi64(codes, 0xd8), _mm256_set1_epi16(-127));
    codes = _mm256_min_epi16(codes, _mm256_set1_epi16(127));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out) + i, codes);
  }
#else
  alignas(64) int16_t row[kBlock];
#if defined(__AVX2__)
  const __m256i order[2] = {_mm256_permute2x128_si256(sums[0], sums[1], 0x20),
                            _mm256_permute2x128_si256(sums[0], sums[1], 0x31)};
  std::memcpy(row, order, sizeof row);
#else
  std::memcpy(row, sums, sizeof row);
#endif
  for (int i = 0; i < kBlock; i += kLanes) {
    typedef int16_t Narrow __attribute__((vector_size(kLanes * sizeof(int16_t))));
    Narrow narrow;
    std::memcpy(&narrow, row + i, sizeof narrow);
    store_codes(out + i, __builtin_convertvector(narrow, Vec) * load(scale + i) + load(bias + i));
  }
#endif
}

// A depthwise layer as its steps read it, and what makes codes of `coding` of its sums.
class OpenTaps {
 public:
  OpenTaps(const float* taps, const Window& w, int middle, Coding coding)
      : down(w.down),
        across(w.across),
        groups(ceil_div(w.down, kJoined)),
        blocks(ceil_div(middle, kBlock)),
        scratch_(Scratch::line(words()) + 2 * Scratch::line(blocks * kBlock)),
        taps_(reinterpret_cast<Tap*>(scratch_.array<int32_t>(words()))),
        scale_(scratch_.array(blocks * kBlock)),
        bias_(scratch_.array(blocks * kBlock)) {
    if (blocks * kBlock > middle) {
      const size_t last = static_cast<size_t>(blocks - 1);
      std::memset(taps_ + last * block_taps(), 0, block_taps() * sizeof(Tap));
      std::memset(scale_ + last * kBlock, 0, kBlock * sizeof(float));
      std::memset(bias_ + last * kBlock, 0, kBlock * sizeof(float));
    }
    for (int channel = 0; channel < middle; channel += kPanel) open(taps, channel, middle, coding);
  }

  int channels() const { return blocks * kBlock; }
  const Tap* taps(int block) const { return taps_ + block * block_taps(); }
  const float* scale(int block) const { return scale_ + block * kBlock; }
  const float* bias(int block) const { return bias_ + block * kBlock; }

  const int down, across, groups, blocks;

 private:
  static constexpr int kTogether = kPanel / kParts;  // channels of a panel that lie side by side in a part

  size_t block_taps() const { return static_cast<size_t>(groups) * across * kStepTaps; }
  size_t words() const { return blocks * block_taps() * sizeof(Tap) / 4; }

  // Where the values of a panel's channels [i * kTogether, ...) lie within a block, in channels' order or the
  // sums'.
  static int place(int channel, int i) { return i * kBlock / kParts + channel % kBlock / kParts; }

  void open(const float* taps, int channel, int middle, Coding coding) {
    alignas(64) int32_t codes[kMostTaps][kPanel];
    alignas(64) float scale[kPanel], bias[kPanel];
    const int count = down * across;
    for (int at = 0; at < kPanel; at += kLanes) {
      const float* from = taps + channel + at;
      Vec most = {}, above = {}, below = {}, carry = {};
      for (int k = 0; k < count; ++k) {
        const Vec tap = load(from + static_cast<ptrdiff_t>(k) * middle);
        most = maximum(most, maximum(tap, -tap));
        above += maximum(tap, Vec{});
        below += maximum(-tap, Vec{});
      }
      const Vec room = splat(1.0f / static_cast<float>(kTapsSum - count));
      const Vec step = maximum(maximum(most * (1.0f / 126.0f), maximum(above, below) * room), splat(1e-30f));
      const Vec inverse = 1.0f / step;
      for (int k = 0; k < count; ++k) {
        const Vec value = load(from + static_cast<ptrdiff_t>(k) * middle) * inverse + carry;
        const IntVec code = whole_codes(value);
        carry = value - __builtin_convertvector(code, Vec);
        std::memcpy(&codes[k][at], &code, sizeof code);
      }
      store(scale + at, step * (coding.inverse / kLevels));
      store(bias + at, load(from + static_cast<ptrdiff_t>(count) * middle) * coding.inverse + coding.shift +
                           (kInOrder ? 0.0f : kCodeOffset));
    }
    const int block = channel / kBlock;
    for (int i = 0; i < kParts; ++i) {
      const int to = block * kBlock + (kInOrder ? channel % kBlock + i * kTogether : place(channel, i));
      std::memcpy(scale_ + to, scale + i * kTogether, kTogether * sizeof(float));
      std::memcpy(bias_ + to, bias + i * kTogether, kTogether * sizeof(float));
    }
    Tap* to = taps_ + block * block_taps();
    for (int group = 0; group < groups; ++group)
      for (int k = 0; k < across; ++k, to += kStepTaps) {
        Tap step[kPanel * kJoined] = {};
        for (int j = 0; j < std::min(kJoined, down - group * kJoined); ++j)
          for (int i = 0; i < kPanel; ++i)
            step[i * kJoined + j] = static_cast<Tap>(codes[(group * kJoined + j) * across + k][i]);
        for (int i = 0; i < kParts; ++i)
          std::memcpy(to + place(channel, i) * kJoined, step + i * kTogether * kJoined,
                      kTogether * kJoined * sizeof(Tap));
      }
  }

  Scratch scratch_;
  Tap* taps_;
  float *scale_, *bias_;
};

// kBlock channels of `Count` neighbouring outputs. lines: those that the kernel sees, at the first pixel's
// left and the block's first channel; `stride` bytes lie between pixels. Across, Step: the kernel's, or 0 for
// any, of one output.
template <int Count, int Across, int Step>
inline void depthwise_block(const OpenTaps& open, int block, const uint8_t* const* lines, ptrdiff_t stride,
                            Code* out, ptrdiff_t out_stride) {
  static_assert(Across > 0 || Count == 1, "of any kernel one output at a time");
  const int columns = Across ? (Count - 1) * Step + Across : open.across;
  Part sums[Count][kParts] = {};
  const Tap* taps = open.taps(block);
  for (int group = 0; group < open.groups; ++group, taps += open.across * kStepTaps) {
    const uint8_t* joined[kJoined];
    for (int j = 0; j < kJoined; ++j) joined[j] = lines[std::min(group * kJoined + j, open.down - 1)];
#pragma GCC unroll 12
    for (int c = 0; c < columns; ++c) {
      Part levels[kParts];
      join(joined, c * stride, levels);
#pragma GCC unroll 4
      for (int i = 0; i < Count; ++i) {
        const int k = c - i * Step;
        if (Across && (k < 0 || k >= Across)) continue;
#pragma GCC unroll 4
        for (int j = 0; j < kParts; ++j)
          sums[i][j] = add(sums[i][j], levels[j], taps + k * kStepTaps + j * (kStepTaps / kParts));
      }
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < Count; ++i) finish(sums[i], open.scale(block), open.bias(block), out + i * out_stride);
}

template <int Across, int Step>
inline void depthwise_outputs(const OpenTaps& open, const uint8_t* const* lines, Code* out,
                              ptrdiff_t out_stride, const Window& w) {
  constexpr int kCount = Across ? 4 : 1;
  const ptrdiff_t stride = open.channels();
  const uint8_t* in[kMostDown];
  for (int x = 0; x < w.out_width;) {
    const int count = w.out_width - x >= kCount ? kCount : 1;
    // Last blocks first: what one writes past its pixel's channels, the next pixel's first block overwrites.
    for (int block = open.blocks - 1; block >= 0; --block) {
      const ptrdiff_t at = x * w.step_across * stride + block * kBlock;
      for (int j = 0; j < w.down; ++j) in[j] = lines[j] + at;
      Code* to = out + x * out_stride + block * kBlock;
      if (count == 1) {
        depthwise_block<1, 0, 0>(open, block, in, stride, to, out_stride);
      } else {
        depthwise_block<kCount, Across, Step>(open, block, in, stride, to, out_stride);
      }
    }
    x += count;
  }
}

// A line of out_width pixels' codes, `out_stride` from one to the next, with room for a block behind it.
// lines: padded, of open.channels() levels a pixel.
inline void depthwise_codes(const OpenTaps& open, const uint8_t* const* lines, Code* out,
                            ptrdiff_t out_stride, const Window& w) {
  if (w.across == 3 && w.step_across == 1) return depthwise_outputs<3, 1>(open, lines, out, out_stride, w);
  if (w.across == 3 && w.step_across == 2) return depthwise_outputs<3, 2>(open, lines, out, out_stride, w);
  if (w.across == 5 && w.step_across == 1) return depthwise_outputs<5, 1>(open, lines, out, out_stride, w);
  if (w.across == 5 && w.step_across == 2) return depthwise_outputs<5, 2>(open, lines, out, out_stride, w);
  depthwise_outputs<0, 0>(open, lines, out, out_stride, w);
}

}  // namespace
}  // namespace edgemtl
