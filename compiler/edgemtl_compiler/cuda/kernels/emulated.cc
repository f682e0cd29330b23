// The emulated device of emulated.h: fibers, barriers, operations of a warp.
#include "emulated.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {
namespace {

constexpr int kLanes = 32;
constexpr size_t kStack = 128 << 10, kGuard = 256;

struct Area {
  alignas(16) unsigned char lanes[kLanes][kRoom];  // read as floats, too
};

struct Copy {
  void* to;
  const void* from;
};

struct Fiber {
  enum State { kReady, kAtWarp, kAtBlock, kDone } state;
  int kind;                               // of the warp operation that it waits in
  unsigned parity;                        // which of two exchange areas its next operation uses
  std::vector<std::vector<Copy>> groups;  // asynchronous copies, the last group still open
  std::unique_ptr<char[]> stack;
  ucontext_t start;
  jmp_buf at;
  bool begun;
};

struct Device {
  std::vector<Fiber> fibers;
  std::vector<unsigned char> memory;
  std::vector<std::array<Area, 2>> areas;  // of each warp
  const std::function<void()>* kernel = nullptr;
  jmp_buf scheduler;
  int now = 0, threads = 0;
  const char* error = nullptr;
  Order order = Order::kForward;
  std::mt19937_64 random;

  std::vector<int> turns(int count) {
    std::vector<int> out(count);
    std::iota(out.begin(), out.end(), 0);
    if (order == Order::kBackward) std::reverse(out.begin(), out.end());
    if (order == Order::kShuffled) std::shuffle(out.begin(), out.end(), random);
    return out;
  }

  void wait(Fiber::State state) {
    Fiber& f = fibers[now];
    f.state = state;
    if (!_setjmp(f.at)) _longjmp(scheduler, 1);
  }
};

Device device;

void body() {
  (*device.kernel)();
  device.fibers[device.now].state = Fiber::kDone;
  _longjmp(device.scheduler, 1);
}

// Lets one fiber run until it waits or ends.
void resume(int index) {
  device.now = index;
  threadIdx = {static_cast<unsigned>(index), 0, 0};
  Fiber& f = device.fibers[index];
  if (_setjmp(device.scheduler)) return;
  if (f.begun) _longjmp(f.at, 1);
  f.begun = true;
  setcontext(&f.start);
}

// One block, from its first instruction to its last.
void run_block() {
  Device& d = device;
  for (int i = 0; i < d.threads; ++i) {
    Fiber& f = d.fibers[i];
    f.state = Fiber::kReady;
    f.begun = false;
    f.parity = 0;
    f.groups.assign(1, {});
    getcontext(&f.start);
    f.start.uc_stack.ss_sp = f.stack.get();
    f.start.uc_stack.ss_size = kStack;
    f.start.uc_link = nullptr;
    makecontext(&f.start, body, 0);
  }
  auto count = [&](int first, int last, Fiber::State state) {
    return std::count_if(d.fibers.begin() + first, d.fibers.begin() + last,
                         [&](const Fiber& f) { return f.state == state; });
  };
  while (!d.error && count(0, d.threads, Fiber::kDone) < d.threads) {
    bool moved = false;
    for (int warp : d.turns(d.threads / kLanes)) {
      const int first = warp * kLanes;
      for (int lane : d.turns(kLanes)) {
        if (d.fibers[first + lane].state != Fiber::kReady) continue;
        resume(first + lane);
        moved = true;
      }
      const int kind = d.fibers[first].kind;
      if (const int waiting = count(first, first + kLanes, Fiber::kAtWarp)) {
        for (int i = first; i < first + kLanes; ++i)
          if (waiting < kLanes || d.fibers[i].kind != kind)
            d.error = "lanes of one warp came to different operations";
          else
            d.fibers[i].state = Fiber::kReady;
        moved = true;
      }
    }
    const int waiting = count(0, d.threads, Fiber::kAtBlock);
    if (waiting == d.threads) {
      for (Fiber& f : d.fibers) f.state = Fiber::kReady;
    } else if (!moved) {
      d.error = "some threads of a block wait at a barrier that others never come to";
    }
  }
}

}  // namespace

Half to_half(float v) {
  uint32_t u;
  memcpy(&u, &v, 4);
  const uint16_t sign = static_cast<uint16_t>(u >> 16 & 0x8000);
  u &= 0x7fffffff;
  if (u > 0x7f800000) return {static_cast<uint16_t>(sign | 0x7e00)};
  if (u >= 0x477ff000) return {static_cast<uint16_t>(sign | 0x7c00)};  // rounds to more than 65504
  if (u < 0x38800000) {                                                // subnormal: multiples of 2^-24
    float magnitude;
    memcpy(&magnitude, &u, 4);
    return {static_cast<uint16_t>(sign | static_cast<uint16_t>(nearbyintf(magnitude * 16777216.0f)))};
  }
  u += 0xfff + (u >> 13 & 1);  // to nearest, ties to even
  return {static_cast<uint16_t>(sign | ((u - 0x38000000) >> 13))};
}

float to_float(Half h) {
  const uint32_t sign = static_cast<uint32_t>(h.bits & 0x8000) << 16, rest = h.bits & 0x7fff;
  float out;
  if (rest < 0x400) {
    out = static_cast<float>(rest) / 16777216.0f;
    return sign ? -out : out;
  }
  const uint32_t u = sign | (rest >= 0x7c00 ? 0x7f800000 | (rest & 0x3ff) << 13 : (rest << 13) + 0x38000000);
  memcpy(&out, &u, 4);
  return out;
}

// The upper half of a float32, to nearest, ties to even.
Bfloat to_bfloat(float v) {
  uint32_t u;
  memcpy(&u, &v, 4);
  if ((u & 0x7fffffff) > 0x7f800000) return {0x7fff};  // as the hardware writes it
  return {static_cast<uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16)};
}

float to_float(Bfloat b) {
  const uint32_t u = static_cast<uint32_t>(b.bits) << 16;
  float out;
  memcpy(&out, &u, 4);
  return out;
}

const char* launch(const std::function<void()>& kernel, Dim3 grid, int threads, size_t shared_bytes) {
  Device& d = device;
  if (threads <= 0 || threads > 1024 || threads % kLanes)
    return "a block must have 32 to 1024 threads, in whole warps";
  d.threads = threads;
  d.kernel = &kernel;
  d.error = nullptr;
  d.fibers.resize(threads);
  for (Fiber& f : d.fibers)
    if (!f.stack) f.stack = std::make_unique<char[]>(kStack);
  d.areas.resize(threads / kLanes);
  blockDim = {static_cast<unsigned>(threads), 1, 1};
  gridDim = grid;
  const int blocks = static_cast<int>(grid.x * grid.y * grid.z);
  for (int block : d.turns(blocks)) {
    const unsigned b = static_cast<unsigned>(block);
    blockIdx = {b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y)};
    d.memory.assign(shared_bytes + kGuard + 128, 0xff);
    run_block();
    if (d.error) return d.error;
    if (std::any_of(shared() + shared_bytes, shared() + shared_bytes + kGuard - 128,
                    [](unsigned char c) { return c != 0xff; }))
      return "a block wrote beyond its shared memory";
  }
  return nullptr;
}

void set_order(Order order, uint64_t seed) {
  device.order = order;
  device.random.seed(seed);
}

unsigned char* shared() {
  unsigned char* p = device.memory.data();
  return p + (128 - reinterpret_cast<uintptr_t>(p) % 128) % 128;
}

const unsigned char (*exchange(int kind, const void* value, size_t bytes)) [kRoom] {
  Device& d = device;
  Fiber& f = d.fibers[d.now];
  auto& area = d.areas[d.now / kLanes][f.parity++ % 2].lanes;
  memcpy(area[d.now % kLanes], value, bytes);
  f.kind = kind;
  d.wait(Fiber::kAtWarp);
  return area;
}

void block_barrier() {
  device.wait(Fiber::kAtBlock);
}

void copy16(void* to, const void* from) { device.fibers[device.now].groups.back().push_back({to, from}); }
void end_copies() { device.fibers[device.now].groups.emplace_back(); }
void wait_copies_left(int left) {
  auto& groups = device.fibers[device.now].groups;
  while (static_cast<int>(groups.size()) > left + 1) {
    for (const Copy& c : groups.front()) memcpy(c.to, c.from, 16);
    groups.erase(groups.begin());
  }
}

namespace {

// c += a b for a warp, of pairs of the 16-bit type T.
template <class T>
void multiply(float* c, const uint32_t* a, const uint32_t* b) {
  float mine[12];  // the pairs, widened
  for (int i = 0; i < 12; ++i)
    mine[i] = to_float(T{static_cast<uint16_t>((i < 8 ? a[i / 2] : b[i / 2 - 4]) >> i % 2 * 16)});
  const unsigned char (*all)[kRoom] = exchange(10, mine, sizeof mine);
  const int lane = static_cast<int>(threadIdx.x) % kLanes, g = lane / 4, t = lane % 4;
  auto lane_has = [&](int from) { return reinterpret_cast<const float*>(all[from]); };
  for (int i = 0; i < 4; ++i)
    for (int half = 0; half < 2; ++half)
      for (int owner = 0; owner < 4; ++owner) {
        const float* row = lane_has(g * 4 + owner) + 2 * (i / 2 + 2 * half);
        const float* column = lane_has((2 * t + i % 2) * 4 + owner) + 8 + 2 * half;
        c[i] += row[0] * column[0];
        c[i] += row[1] * column[1];
      }
}

}  // namespace

void mma_half(float* c, const uint32_t* a, const uint32_t* b) { multiply<Half>(c, a, b); }
void mma_bfloat(float* c, const uint32_t* a, const uint32_t* b) { multiply<Bfloat>(c, a, b); }

void load_transposed(uint32_t* to, const void* row) {
  const unsigned char (*all)[kRoom] = exchange(11, row, 16);
  const int lane = static_cast<int>(threadIdx.x) % kLanes, g = lane / 4, t = lane % 4;
  for (int m = 0; m < 4; ++m)
    for (int part = 0; part < 2; ++part)
      memcpy(reinterpret_cast<unsigned char*>(to + m) + 2 * part, all[8 * m + 2 * t + part] + 2 * g, 2);
}

}  // namespace emulated
