// The Verilated attention unit for ctypes: runs a list of jobs and counts the cycles from the first job's
// offer to the last result.
#include "Vunit.h"
#include "harness.h"

using namespace edgemtl;

namespace {
struct Job {
  int32_t tokens, heads, steps;
};
}  // namespace

// Beats are 64 bytes (a query, a result, a quad) or 128 (a key, then its value). Returns as linear_run does.
extern "C" int64_t attention_run(const Job* jobs, int64_t job_count, const uint8_t* quads, int64_t quad_count,
                                 const uint8_t* queries, int64_t query_count, const uint8_t* keys,
                                 int64_t key_count, uint8_t* results, int64_t result_count, uint32_t seed,
                                 uint32_t gaps, uint32_t stalls, int64_t limit, int32_t* bad_table) {
  Vunit& m = model<Vunit>(seed);
  Traffic traffic{gaps, stalls, std::mt19937(seed)};
  Source job(jobs, sizeof(Job), job_count), weight(quads, 64, quad_count), query(queries, 64, query_count);
  Source key(keys, 128, key_count);
  Sink out(results, 64, result_count);
  m.job_valid = m.weight_valid = m.query_valid = m.key_valid = m.out_ready = 0;
  reset(m);
  int64_t cycle = 0, end = 0;
  for (int idle = 0; idle < 64;) {
    m.job_valid = job.offer(traffic);
    const Job& j = *reinterpret_cast<const Job*>(job.beat());
    m.job_tokens = static_cast<uint16_t>(j.tokens);
    m.job_heads = static_cast<uint8_t>(j.heads);
    m.job_steps = static_cast<uint8_t>(j.steps);
    m.weight_valid = weight.offer(traffic);
    std::memcpy(&m.weight_data, weight.beat(), 64);
    m.query_valid = query.offer(traffic);
    std::memcpy(&m.query_data, query.beat(), 64);
    m.key_valid = key.offer(traffic);
    std::memcpy(&m.key_data, key.beat(), 64);
    std::memcpy(&m.value_data, key.beat() + 64, 64);
    m.out_ready = !traffic.stall();
    m.clk = 0;
    m.eval();
    const bool job_ready = m.job_ready, weight_ready = m.weight_ready, query_ready = m.query_ready;
    const bool key_ready = m.key_ready;
    if (!out.clocked(m.out_valid, &m.out_data, m.out_ready)) return kUnstable;
    m.clk = 1;
    m.eval();
    job.clocked(job_ready);
    weight.clocked(weight_ready);
    query.clocked(query_ready);
    key.clocked(key_ready);
    ++cycle;
    if (out.surplus()) return kSurplus;
    if (out.full() && !end) end = cycle;
    if (end && job.empty() && weight.empty() && query.empty() && key.empty())
      ++idle;
    else if (cycle >= limit)
      return kTimeout;
  }
  *bad_table = m.bad_table;
  return end;
}
