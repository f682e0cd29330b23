// The experts, one after the other: a metaqueue names those with tokens, and each one's two products become
// jobs of the linear unit, which loads the next expert's weights while it computes. Every weight is read once
// per layer.
#include "units.h"

namespace edgemtl {

int experts(EDGEMTL_WEIGHTS, uint32_t at, uint32_t stride, int count, int dim, int hidden, Memory& memory) {
  metaqueue_stream metaqueue("experts.metaqueue");
  for (int e = 0; e < count; ++e)
    if (memory.length[e] > 0) metaqueue.write(static_cast<uint8_t>(e));
  static Job jobs[kMaxJobs];
  int n = 0;
  while (!metaqueue.empty()) {
    const int e = metaqueue.read();
    const uint32_t here = at + static_cast<uint32_t>(e) * stride;
    Job first = {here + kGeluQuads, here, false, memory.length[e], dim, hidden, 0, kToHidden, e, true, 1, 1};
    Job second = {first.at + linear_quads(dim, hidden),
                  0,
                  true,
                  memory.length[e],
                  hidden,
                  dim,
                  0,
                  kScored,
                  e,
                  false,
                  1,
                  1};
    jobs[n++] = first;
    jobs[n++] = second;
  }
  return linear(w0, w1, w2, w3, jobs, n, memory, nullptr);
}

}  // namespace edgemtl
