// C simulation only: the units and the memories on chip for ctypes. Every function returns a Status; a
// deadlock in a stream becomes kDeadlock, with the stream's name in edgemtl_csim_message.
#include <hls_stream.h>

#include <string>

#include "../include/mul2.h"
#include "../include/program.h"
#include "../include/units.h"
#include "simulated.h"

namespace edgemtl {
uint32_t simulated_cycle = 0;
}

namespace {

edgemtl::Memory memory;
edgemtl::Job jobs[edgemtl::kMaxJobs];
std::string message;

template <typename Unit>
int guarded(Unit unit) {
  try {
    return unit();
  } catch (const hls::deadlock& error) {
    message = error.what();
    return edgemtl::kDeadlock;
  }
}

}  // namespace

#define EDGEMTL_BANKS w0, w1, w2, w3

extern "C" {

int edgemtl_top(EDGEMTL_ARGUMENTS);

using edgemtl::word_t;

const char* edgemtl_csim_message() { return message.c_str(); }

// Of the top level's arguments. Another version would take them for others.
int edgemtl_csim_register_version() { return edgemtl::kRegisterVersion; }

void* edgemtl_csim_memory(int which) {
  switch (which) {
    case 0:
      return memory.stream;
    case 1:
      return memory.rows;
    case 2:
      return memory.pool;
    case 3:
      return memory.logit;
    case 4:
      return memory.token;
    case 5:
      return memory.score;
    default:
      return memory.length;
  }
}

int edgemtl_csim_frame(EDGEMTL_WEIGHTS, uint32_t quads, const word_t* program, uint32_t program_words,
                       const word_t* pixels, uint32_t pixel_words, word_t* output, uint32_t output_words,
                       uint32_t task, word_t* counters) {
  return guarded([&] {
    return edgemtl_top(EDGEMTL_BANKS, quads, program, program_words, pixels, pixel_words, output,
                       output_words, task, counters, &edgemtl::simulated_cycle);
  });
}

int edgemtl_csim_norm(EDGEMTL_WEIGHTS, int first, int rows, int dim) {
  return guarded([&] { return edgemtl::layer_norm(EDGEMTL_BANKS, 0, first, rows, dim, memory); });
}

int edgemtl_csim_attention(EDGEMTL_WEIGHTS, int tokens, int dim, int heads) {
  return guarded([&] { return edgemtl::attention(EDGEMTL_BANKS, 0, tokens, dim, heads, memory); });
}

// Logits, top-k and queues.
int edgemtl_csim_gate(EDGEMTL_WEIGHTS, int tokens, int dim, int experts, int top_k, int renormalise) {
  jobs[0] = {3, 0, false, 0, tokens, dim, 2 * edgemtl::kMaxExperts, 0, edgemtl::kLogits, -1, false};
  return guarded([&] {
    edgemtl::Ahead ahead = {false, 0};
    const int status = edgemtl::linear(EDGEMTL_BANKS, jobs, 1, nullptr, ahead, memory, nullptr);
    if (status != edgemtl::kOk) return status;
    return edgemtl::gate(EDGEMTL_BANKS, 0, tokens, experts, top_k, renormalise != 0, memory);
  });
}

int edgemtl_csim_experts(EDGEMTL_WEIGHTS, uint32_t stride, int count, int dim, int hidden) {
  return guarded([&] {
    edgemtl::Ahead ahead = {false, 0};
    const int n = edgemtl::expert_jobs(0, stride, count, dim, hidden, memory, jobs);
    return edgemtl::linear(EDGEMTL_BANKS, jobs, n, nullptr, ahead, memory, nullptr);
  });
}

int edgemtl_csim_linear(EDGEMTL_WEIGHTS, word_t* output, int from_pool, int rows, int inputs, int outputs,
                        int out, int epilogue) {
  const bool gelu = epilogue == edgemtl::kToHidden || epilogue == edgemtl::kToStream;
  jobs[0] = {static_cast<uint32_t>(gelu ? edgemtl::kGeluQuads : 0),
             0,
             from_pool != 0,
             0,
             rows,
             inputs,
             outputs,
             out,
             static_cast<edgemtl::Epilogue>(epilogue),
             -1,
             false};
  return guarded([&] {
    edgemtl::Ahead ahead = {false, 0};
    return edgemtl::linear(EDGEMTL_BANKS, jobs, 1, nullptr, ahead, memory, output);
  });
}

int edgemtl_csim_depthwise(EDGEMTL_WEIGHTS, int rows, int cols, int shift, int width) {
  return guarded([&] {
    return edgemtl::depthwise(EDGEMTL_BANKS, edgemtl::kGeluQuads, 0, rows, cols, shift, width, memory);
  });
}

int edgemtl_csim_narrow(EDGEMTL_WEIGHTS, int rows, int cols, int shift, int width) {
  return guarded([&] { return edgemtl::narrow(EDGEMTL_BANKS, 0, rows, cols, shift, width, memory); });
}

// How many of the 2^24 triples (a, b, w) the packed multiplier gets wrong, alone or four times in a cascade,
// and how many products of a softmax weight and a value are wrong.
int edgemtl_csim_mul2_faults() {
  int faults = 0;
  for (int a = -128; a < 128; ++a)
    for (int b = -128; b < 128; ++b)
      for (int w = -128; w < 128; ++w) {
        const int64_t one =
            edgemtl::mul2(static_cast<int8_t>(a), static_cast<int8_t>(b), static_cast<int8_t>(w));
        const edgemtl::Products p = edgemtl::split(one), q = edgemtl::split(edgemtl::kCascade * one);
        faults += p.a != a * w || p.b != b * w;
        faults += q.a != edgemtl::kCascade * a * w || q.b != edgemtl::kCascade * b * w;
      }
  for (uint32_t weight = 0; weight <= 1u << 15; ++weight)
    for (int v = -128; v < 128; ++v)
      faults += edgemtl::product_of_rows(weight, static_cast<int8_t>(v)) != static_cast<int32_t>(weight) * v;
  return faults;
}

// Writes `writes` values into a stream of three places, then reads `reads`.
int edgemtl_csim_stream(int writes, int reads) {
  return guarded([&] {
    hls::stream<int, 3> fifo("probe");
    for (int i = 0; i < writes; ++i) fifo.write(i);
    for (int i = 0; i < reads; ++i)
      if (fifo.read() != i) return static_cast<int>(edgemtl::kBadTable);
    return static_cast<int>(edgemtl::kOk);
  });
}
}
