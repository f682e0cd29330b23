// C simulation only: as much of Vitis' ap_uint as the kernels use. Vitis brings its own header of this name.
#ifndef EDGEMTL_CSIM_AP_INT_H
#define EDGEMTL_CSIM_AP_INT_H
#ifdef __SYNTHESIS__
#error "hls/csim is for C simulation; synthesise with the tool's own headers"
#endif

#include <cstdint>

template <int W>
class ap_uint {
  static constexpr int kWords = (W + 63) / 64;
  uint64_t words_[kWords];

  static constexpr uint64_t mask(int bits) {
    return bits >= 64 ? ~static_cast<uint64_t>(0) : (static_cast<uint64_t>(1) << bits) - 1;
  }

 public:
  // Bits high .. low, at most 64 of them; reads and writes like ap_range_ref.
  class Range {
    ap_uint& of_;
    int high_, low_;

   public:
    Range(ap_uint& of, int high, int low) : of_(of), high_(high), low_(low) {}
    uint64_t to_uint64() const { return of_.get(high_, low_); }
    Range& operator=(uint64_t value) {
      of_.set(high_, low_, value);
      return *this;
    }
  };
  class ConstRange {
    const ap_uint& of_;
    int high_, low_;

   public:
    ConstRange(const ap_uint& of, int high, int low) : of_(of), high_(high), low_(low) {}
    uint64_t to_uint64() const { return of_.get(high_, low_); }
  };

  ap_uint() : words_() {}
  ap_uint(uint64_t value) : words_() { words_[0] = value & mask(W); }
  Range range(int high, int low) { return Range(*this, high, low); }
  ConstRange range(int high, int low) const { return ConstRange(*this, high, low); }
  uint64_t to_uint64() const { return words_[0]; }
  bool operator==(const ap_uint& other) const {
    for (int i = 0; i < kWords; ++i)
      if (words_[i] != other.words_[i]) return false;
    return true;
  }

  uint64_t get(int high, int low) const {
    const int bits = high - low + 1, word = low / 64, by = low % 64;
    uint64_t value = words_[word] >> by;
    if (by && by + bits > 64) value |= words_[word + 1] << (64 - by);
    return value & mask(bits);
  }
  void set(int high, int low, uint64_t value) {
    const int bits = high - low + 1, word = low / 64, by = low % 64;
    value &= mask(bits);
    words_[word] = (words_[word] & ~(mask(bits) << by)) | value << by;
    if (by && by + bits > 64)
      words_[word + 1] = (words_[word + 1] & ~mask(by + bits - 64)) | value >> (64 - by);
  }
};

static_assert(sizeof(ap_uint<128>) == 16, "NumPy's buffers are read as words");

#endif
