// The experts, one after the other: a metaqueue names those with tokens, and each one's two products become
// jobs of the linear unit, which loads the next expert's weights while it computes. Every weight is read once
// per layer.
#include <hls_stream.h>

#include "units.h"

namespace edgemtl {

typedef hls::stream<uint8_t, kMaxExperts> metaqueue_stream;

// Returns the number of jobs. The rows of a queue are picked into the pool's first words, the hidden rows
// follow.
int expert_jobs(uint32_t at, uint32_t stride, int count, int dim, int hidden, const Memory& memory,
                Job jobs[kMaxJobs]) {
  metaqueue_stream metaqueue("experts.metaqueue");
  for (int e = 0; e < count; ++e)
    if (memory.length[e] > 0) metaqueue.write(static_cast<uint8_t>(e));
  int n = 0;
  while (!metaqueue.empty()) {
    const int e = metaqueue.read(), rows = memory.length[e];
    const uint32_t here = at + static_cast<uint32_t>(e) * stride, first = here + kGeluQuads;
    const int behind = row_groups(rows) * (dim / 16);
    jobs[n++] = {first, here, true, 0, rows, dim, hidden, behind, kToHidden, e, true};
    jobs[n++] = {first + linear_quads(dim, hidden), 0, true, behind, rows, hidden, dim, 0, kScored, e, false};
  }
  return n;
}

}  // namespace edgemtl
