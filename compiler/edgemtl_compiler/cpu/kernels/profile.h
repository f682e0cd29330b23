// What each kernel call took and did, when somebody asks; otherwise one branch per call.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace edgemtl {
namespace {

// A finished call: multiply-accumulates, bytes of weights that it had to read, and its time.
struct Call {
  const char* kernel;
  int64_t macs, bytes, nanoseconds;
};

// The calls of one run, in order; more than there is room for are counted and not kept. For one thread at a
// time.
struct Profile {
  static constexpr int kRoom = 1024;
  std::atomic<bool> on{false};
  int count = 0;
  Call calls[kRoom];
};
Profile g_profile;

// Times the scope that it lives in.
class Timed {
 public:
  using Clock = std::chrono::steady_clock;

  Timed(const char* kernel, int64_t macs, int64_t bytes)
      : on_(g_profile.on.load(std::memory_order_relaxed)), call_{kernel, macs, bytes, 0} {
    if (on_) start_ = Clock::now();
  }
  ~Timed() {
    if (!on_) return;
    call_.nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start_).count();
    if (g_profile.count < Profile::kRoom) g_profile.calls[g_profile.count] = call_;
    ++g_profile.count;
  }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

 private:
  bool on_;
  Call call_;
  Clock::time_point start_;
};

}  // namespace
}  // namespace edgemtl
