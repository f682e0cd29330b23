// C simulation only: hls::stream with the depth that the hardware's FIFO has. The simulation runs one unit
// after the other, so reading an empty stream or writing a full one can never go on: it throws, naming the
// stream.
#ifndef EDGEMTL_CSIM_HLS_STREAM_H
#define EDGEMTL_CSIM_HLS_STREAM_H
#ifdef __SYNTHESIS__
#error "hls/csim is for C simulation; synthesise with the tool's own headers"
#endif

#include <stdexcept>
#include <string>

namespace hls {

struct deadlock : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <typename T, int DEPTH = 2>
class stream {
  static_assert(DEPTH > 0, "a FIFO holds something");
  T values_[DEPTH];
  int first_ = 0, count_ = 0;
  const char* name_;

 public:
  explicit stream(const char* name = "unnamed") : values_(), name_(name) {}
  stream(const stream&) = delete;
  stream& operator=(const stream&) = delete;
  ~stream() = default;

  bool empty() const { return count_ == 0; }
  bool full() const { return count_ == DEPTH; }
  int size() const { return count_; }
  T read() {
    if (empty()) throw deadlock("deadlock: stream '" + std::string(name_) + "' is read while empty");
    const T value = values_[first_];
    first_ = (first_ + 1) % DEPTH;
    --count_;
    return value;
  }
  void write(const T& value) {
    if (full())
      throw deadlock("deadlock: stream '" + std::string(name_) + "' is written while all " +
                     std::to_string(DEPTH) + " places are full");
    values_[(first_ + count_) % DEPTH] = value;
    ++count_;
  }
};

}  // namespace hls

#endif
