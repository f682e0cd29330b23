// The Verilated linear unit for ctypes: runs a list of jobs and counts the cycles from the first job's offer
// to the last result.
#include "Vunit.h"
#include "harness.h"

using namespace edgemtl;

namespace {
struct Job {
  int32_t rows, words, tiles, epilogue;
};
struct StreamBeat {
  int16_t cell[16];
  uint16_t score;
};
}  // namespace

// Returns the cycles, or kTimeout after `limit` cycles, kUnstable, kSurplus. When all input is taken, too, a
// few cycles more are run to see that nothing follows.
extern "C" int64_t linear_run(const Job* jobs, int64_t job_count, const uint8_t* quads, int64_t quad_count,
                              const uint8_t* rows, int64_t row_size, int64_t row_count,
                              const StreamBeat* stream, int64_t stream_count, uint8_t* results,
                              int64_t result_count, uint32_t seed, uint32_t gaps, uint32_t stalls,
                              int64_t limit, int32_t* bad_table) {
  Vunit& m = model<Vunit>(seed);
  Traffic traffic{gaps, stalls, std::mt19937(seed)};
  Source job(jobs, sizeof(Job), job_count), weight(quads, 64, quad_count);
  Source row(rows, static_cast<size_t>(row_size), row_count), add(stream, sizeof(StreamBeat), stream_count);
  Sink out(results, 64, result_count);
  m.job_valid = m.weight_valid = m.row_valid = m.stream_valid = m.out_ready = 0;
  reset(m);
  int64_t cycle = 0, end = 0;
  for (int idle = 0; idle < 64;) {
    m.job_valid = job.offer(traffic);
    const Job& j = *reinterpret_cast<const Job*>(job.beat());
    m.job_rows = static_cast<uint16_t>(j.rows);
    m.job_words = static_cast<uint8_t>(j.words);
    m.job_tiles = static_cast<uint8_t>(j.tiles);
    m.job_epilogue = static_cast<uint8_t>(j.epilogue);
    m.weight_valid = weight.offer(traffic);
    std::memcpy(&m.weight_data, weight.beat(), 64);
    m.row_valid = row.offer(traffic);
    std::memcpy(&m.row_data, row.beat(), static_cast<size_t>(row_size));
    m.stream_valid = add.offer(traffic);
    if (stream_count) {
      const StreamBeat& beat = *reinterpret_cast<const StreamBeat*>(add.beat());
      std::memcpy(&m.stream_data, beat.cell, 32);
      m.stream_score = beat.score;
    }
    m.out_ready = !traffic.stall();
    m.clk = 0;
    m.eval();
    const bool job_ready = m.job_ready, weight_ready = m.weight_ready, row_ready = m.row_ready;
    const bool stream_ready = m.stream_ready;
    if (!out.clocked(m.out_valid, &m.out_data, m.out_ready)) return kUnstable;
    m.clk = 1;
    m.eval();
    job.clocked(job_ready);
    weight.clocked(weight_ready);
    row.clocked(row_ready);
    add.clocked(stream_ready);
    ++cycle;
    if (out.surplus()) return kSurplus;
    if (out.full() && !end) end = cycle;
    if (end && job.empty() && weight.empty() && row.empty() && add.empty())
      ++idle;
    else if (cycle >= limit)
      return kTimeout;
  }
  *bad_table = m.bad_table;
  return end;
}
