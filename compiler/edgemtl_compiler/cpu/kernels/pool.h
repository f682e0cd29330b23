// Threads and scratch memory, both owned by the library that holds them and freed when it is unloaded.
//
// Own threads rather than TVM's pool: that one belongs to the calling thread, takes its size from the
// environment, and binds the caller to processors. Here the caller says before each run how many threads it
// wants (`set_threads`), so that engines with different counts share a process. No kernel's result depends on
// the count: a kernel cuts its output into items, and which thread computes an item changes nothing in it.
#pragma once

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace edgemtl {
namespace {

constexpr int kMaxThreads = 64;
constexpr int kSpins =
    2000;  // pauses before a waiting thread sleeps: some 30 us, longer than the gap between kernels

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class Pool {
 public:
  // Calls run(context, item, worker) once for each item in [0, count); worker is in [0, threads).
  using Run = void (*)(void* context, int item, int worker);

  void launch(int threads, int count, Run run, void* context) {
    threads = std::min({threads, count, kMaxThreads});
    std::unique_lock<std::mutex> busy(mutex_, std::defer_lock);
    // Another caller's kernel holds the pool: working alone beats waiting, and gives the same bits.
    if (threads <= 1 || !busy.try_lock() || !grow(threads - 1)) {
      for (int i = 0; i < count; ++i) run(context, i, 0);
      return;
    }
    run_ = run;
    context_ = context;
    threads_ = threads;
    for (int t = 0; t < threads; ++t) {
      shares_[t].next.store(cut(count, t, threads), std::memory_order_relaxed);
      shares_[t].end = cut(count, t + 1, threads);
    }
    active_.store(kOpen, std::memory_order_release);
    for (int t = 1; t < threads; ++t) workers_[t - 1]->wake();
    work(0);
    // Nothing is left to begin. Workers that came are waited for; one that has not woken yet finds the door
    // closed.
    active_.fetch_and(~kOpen, std::memory_order_acq_rel);
    for (int spin = 0; active_.load(std::memory_order_acquire) != 0; ++spin) {
      if (spin < kSpins) {
        pause();
      } else {
        sched_yield();
      }
    }
  }

  ~Pool() {
    for (auto& worker : workers_) worker->stop();
  }

 private:
  // Each thread starts with its own run of neighbouring items (their weights stay in its cache) and then
  // helps others.
  struct alignas(64) Share {
    std::atomic<int> next{0};
    int end = 0;
  };

  struct alignas(64) Worker {
    std::atomic<unsigned> ticket{0};
    std::atomic<bool> asleep{false}, stopping{false};
    std::mutex mutex;
    std::condition_variable condition;
    std::thread thread;

    void wake() {
      ticket.fetch_add(1);
      if (!asleep.load()) return;
      {
        std::lock_guard<std::mutex> lock(mutex);
      }
      condition.notify_one();
    }

    void stop() {
      stopping.store(true);
      wake();
      thread.join();
    }

    unsigned await(unsigned seen) {
      for (int spin = 0; spin < kSpins; ++spin, pause())
        if (const unsigned now = ticket.load(std::memory_order_acquire); now != seen) return now;
      std::unique_lock<std::mutex> lock(mutex);
      asleep.store(true);
      condition.wait(lock, [&] { return ticket.load() != seen; });
      asleep.store(false);
      return ticket.load();
    }
  };

  static int cut(int count, int part, int parts) {
    return static_cast<int>(static_cast<int64_t>(count) * part / parts);
  }

  bool grow(int wanted) {
    try {
      while (static_cast<int>(workers_.size()) < wanted) {
        auto worker = std::make_unique<Worker>();
        Worker* self = worker.get();
        const int id = static_cast<int>(workers_.size()) + 1;
        workers_.reserve(wanted);
        worker->thread = std::thread([this, self, id] {
          for (unsigned seen = 0;;) {
            seen = self->await(seen);
            if (self->stopping.load()) return;
            join(id);
          }
        });
        workers_.push_back(std::move(worker));
      }
    } catch (const std::exception&) {
      return false;  // no more threads to be had: the caller works alone
    }
    return true;
  }

  void join(int id) {
    for (unsigned now = active_.load(std::memory_order_relaxed); now & kOpen;) {
      if (!active_.compare_exchange_weak(now, now + 1, std::memory_order_acquire, std::memory_order_relaxed))
        continue;
      if (id < threads_) work(id);  // a late worker may meet the next, smaller job
      active_.fetch_sub(1, std::memory_order_release);
      return;
    }
  }

  void work(int id) {
    for (int t = 0; t < threads_; ++t) {
      Share& share = shares_[(id + t) % threads_];
      for (int i; (i = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;)
        run_(context_, i, id);
    }
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<Worker>> workers_;
  Share shares_[kMaxThreads];
  static constexpr unsigned kOpen = 1u << 31;
  std::atomic<unsigned> active_{0};  // workers inside the job; kOpen while more may come in
  Run run_ = nullptr;
  void* context_ = nullptr;
  int threads_ = 0;
};

// Memory for kernels' scratch: blocks go back to this list, so a steady stream of frames allocates nothing.
class Blocks {
 public:
  struct Block {
    void* memory;
    size_t bytes;
  };

  Blocks() { free_.reserve(kMaxThreads); }
  ~Blocks() {
    for (Block& b : free_) std::free(b.memory);
  }

  Block take(size_t bytes) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      for (size_t i = 0; i < free_.size(); ++i) {
        if (free_[i].bytes < bytes) continue;
        const Block found = free_[i];
        free_.erase(free_.begin() + static_cast<ptrdiff_t>(i));
        return found;
      }
      if (!free_.empty()) {  // too small for this kernel; the larger block that replaces it will serve every
                             // kernel
        std::free(free_.back().memory);
        free_.pop_back();
      }
    }
    void* memory = std::aligned_alloc(64, bytes);
    if (!memory) throw std::bad_alloc();
    return {memory, bytes};
  }

  void give(Block block) {
    std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(block);
  }

 private:
  std::mutex mutex_;
  std::vector<Block> free_;
};

// What the library owns. A forked child has none of its parent's threads, and a lock may have been held: it
// starts anew.
struct State {
  Pool pool;
  Blocks blocks;
};

class Owner {
 public:
  Owner() {
    state = new State;
    pthread_atfork(nullptr, nullptr, [] { state = new State; });
  }
  ~Owner() { delete state; }
  static State* state;
};
State* Owner::state = nullptr;
Owner g_owner;

std::atomic<int> g_default_threads{1};
thread_local int t_threads = 0;

// Threads that kernels called from this thread may use; threads that never call this get the value last set
// anywhere.
inline void set_threads(int n) {
  t_threads = std::clamp(n, 1, kMaxThreads);
  g_default_threads.store(t_threads, std::memory_order_relaxed);
}

inline int threads() { return t_threads ? t_threads : g_default_threads.load(std::memory_order_relaxed); }

// body(item, worker) for each item in [0, count), on up to `workers` threads, the caller among them.
template <class Body>
void parallel_for(int workers, int count, const Body& body) {
  Owner::state->pool.launch(
      workers, count,
      [](void* context, int item, int worker) { (*static_cast<const Body*>(context))(item, worker); },
      const_cast<Body*>(&body));
}

// Scratch memory of one kernel call, dealt out in arrays that begin on 64-byte lines.
class Scratch {
 public:
  // Room for arrays of `values` 4-byte values in all, each array rounded up by `line`.
  explicit Scratch(size_t values)
      : block_(Owner::state->blocks.take(std::max<size_t>(64, values * 4))),
        next_(static_cast<char*>(block_.memory)) {}
  ~Scratch() { Owner::state->blocks.give(block_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  static size_t line(size_t values) { return (values + 15) / 16 * 16; }

  template <class T = float>
  T* array(size_t count) {
    static_assert(sizeof(T) == 4, "scratch is counted in 4-byte values");
    T* out = reinterpret_cast<T*>(next_);
    next_ += line(count) * 4;
    return out;
  }

 private:
  Blocks::Block block_;
  char* next_;
};

}  // namespace
}  // namespace edgemtl
