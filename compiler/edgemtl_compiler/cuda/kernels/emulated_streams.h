// Streams, events and graphs of the emulated GPU (emulated_driver.cc), which is as late as a real one may be:
// what is submitted to a stream is done when somebody waits for it, on the host or in another stream that is
// waited for, and not before. So whoever forgets to wait reads what was there before.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <utility>
#include <vector>

namespace emulated {

using Step = std::function<int()>;  // 0, or an error

struct Graph {
  std::vector<Step> steps;
};

struct Stream {
  std::unique_ptr<Graph> capturing;
  std::deque<Step> waiting;
  size_t done = 0;

  size_t submitted() const { return done + waiting.size(); }
};

// A moment: everything that had been submitted to a stream before.
struct Event {
  Stream* stream = nullptr;
  size_t position = 0;
};

constexpr int kInvalid = 1, kNotReady = 600;

inline Stream g_legacy, g_per_thread;  // those that everybody has; their handles are the numbers 1 and 2
inline std::set<Stream*> g_streams = {&g_legacy, &g_per_thread};

// None for a handle of a stream that has ended, or never was.
inline Stream* stream_of(void* handle) {
  const auto number = reinterpret_cast<uintptr_t>(handle);
  auto* stream = number == 1 ? &g_legacy : number == 2 ? &g_per_thread : static_cast<Stream*>(handle);
  return g_streams.count(stream) ? stream : nullptr;
}

inline bool has_come(const Event& event) {
  return !g_streams.count(event.stream) || event.stream->done >= event.position;
}

// Does what was submitted to a stream before a moment. After an error the rest is left out.
inline int catch_up(const Event& moment) {
  while (!has_come(moment)) {
    Stream& stream = *moment.stream;
    const Step step = std::move(stream.waiting.front());
    stream.waiting.pop_front();
    ++stream.done;
    if (const int code = step()) {
      stream.done += stream.waiting.size();
      stream.waiting.clear();
      return code;
    }
  }
  return 0;
}

inline int catch_up_with(Stream* stream) { return catch_up({stream, stream->submitted()}); }

inline int catch_up_with_all() {
  for (Stream* stream : g_streams)
    if (const int code = catch_up_with(stream)) return code;
  return 0;
}

// Notes a step for later, or for the graph that the stream is capturing.
inline int submit(void* handle, Step step) {
  Stream* stream = stream_of(handle);
  if (!stream) return kInvalid;
  if (stream->capturing)
    stream->capturing->steps.push_back(std::move(step));
  else
    stream->waiting.push_back(std::move(step));
  return 0;
}

// `external`: while a graph is captured, an event that its replays record for the outside.
inline int record(Event* event, void* handle, bool external) {
  Stream* stream = stream_of(handle);
  if (!stream || (stream->capturing && !external)) return kInvalid;
  if (!stream->capturing) {
    *event = {stream, stream->submitted()};
    return 0;
  }
  return submit(handle, [=] {
    *event = {stream, stream->done};
    return 0;
  });
}

}  // namespace emulated
