// Drives a Verilated unit's valid/ready streams from memory, with gaps and back-pressure drawn from a seed,
// and watches the protocol: a result that waits must neither vanish nor change.
#ifndef EDGEMTL_RTL_HARNESS_H
#define EDGEMTL_RTL_HARNESS_H

#include <verilated.h>

#include <cstdint>
#include <cstring>
#include <random>

namespace edgemtl {

enum { kTimeout = -1, kUnstable = -2, kSurplus = -3 };

// One of a hundred cycles each: how often a source has nothing, how often a sink does not take.
struct Traffic {
  uint32_t gaps, stalls;
  std::mt19937 random;
  bool gap() { return gaps && random() % 100 < gaps; }
  bool stall() { return stalls && random() % 100 < stalls; }
};

// Beats of `size` bytes one after the other. A beat that was offered stays until it is taken.
class Source {
 public:
  Source(const void* data, size_t size, int64_t beats)
      : data_(static_cast<const uint8_t*>(data)), size_(size), beats_(beats) {}
  bool offer(Traffic& traffic) {
    if (!valid_) valid_ = next_ < beats_ && !traffic.gap();
    return valid_;
  }
  const uint8_t* beat() const { return data_ + static_cast<size_t>(next_ < beats_ ? next_ : 0) * size_; }
  void clocked(bool ready) {
    if (valid_ && ready) {
      ++next_;
      valid_ = false;
    }
  }
  bool empty() const { return next_ == beats_; }

 private:
  const uint8_t* data_;
  size_t size_;
  int64_t beats_, next_ = 0;
  bool valid_ = false;
};

// Collects `beats` results of `size` bytes.
class Sink {
 public:
  Sink(void* data, size_t size, int64_t beats)
      : data_(static_cast<uint8_t*>(data)), size_(size), beats_(beats) {}
  // What the unit shows in this cycle and whether it is taken; false when a waiting result changed.
  bool clocked(bool valid, const void* beat, bool ready) {
    if (waiting_ && (!valid || std::memcmp(beat, last_, size_) != 0)) return false;
    waiting_ = valid && !ready;
    if (waiting_) std::memcpy(last_, beat, size_);
    if (valid && ready) {
      if (count_ < beats_) std::memcpy(data_ + static_cast<size_t>(count_) * size_, beat, size_);
      ++count_;
    }
    return true;
  }
  bool full() const { return count_ == beats_; }
  bool surplus() const { return count_ > beats_; }

 private:
  uint8_t* data_;
  size_t size_;
  int64_t beats_, count_ = 0;
  bool waiting_ = false;
  uint8_t last_[256];
};

// The model with every register drawn at random: a reset has to suffice.
template <typename Model>
Model& model(uint32_t seed) {
  static VerilatedContext* context = new VerilatedContext;
  static Model* made = nullptr;
  if (!made) {
    context->randReset(2);
    context->randSeed(static_cast<int>(seed % 1000 + 1));
    made = new Model{context};
  }
  return *made;
}

template <typename Model>
void reset(Model& m) {
  m.rst = 1;
  for (int i = 0; i < 2; ++i) {
    m.clk = 0;
    m.eval();
    m.clk = 1;
    m.eval();
  }
  m.rst = 0;
}

}  // namespace edgemtl

#endif
