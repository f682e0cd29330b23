// The gate behind its logits: top-k by insertion (equal logits: the lower expert), softmax scores in UQ1.15,
// and the queues, one per expert, filled in token order. The logits over a task's path are a product of the
// linear unit, which has left them in memory: the INT16 weights go there as two INT8 halves, the upper half
// times 128.
#include "units.h"

namespace edgemtl {

int gate(EDGEMTL_WEIGHTS, uint32_t at, int tokens, int experts, int top_k, bool renormalise, Memory& memory) {
  constexpr int32_t kLogitBias = 1 << 29;
  const Quad head = read_quad(w0, w1, w2, w3, at);
  const Quad ids = read_quad(w0, w1, w2, w3, at + 1);
  const Quad offsets = read_quad(w0, w1, w2, w3, at + 2);
  const uint32_t count = field(head, 0);
  const Factor exponent = factor(field(head, 1));
  if (count < static_cast<uint32_t>(top_k) || count > static_cast<uint32_t>(experts) || !valid(exponent))
    return kBadTable;
  uint32_t slot[kMaxExperts];
  int32_t bias[kMaxExperts];
  for (uint32_t e = 0; e < kMaxExperts; ++e) {
    slot[e] = field(ids, e);
    bias[e] = load_bias(field(offsets, e), kLogitBias);
    // Ascending, so no expert appears twice and no queue can overflow.
    if (e < count && (slot[e] >= static_cast<uint32_t>(experts) || (e > 0 && slot[e] <= slot[e - 1])))
      return kBadTable;
  }
  for (int e = 0; e < kMaxExperts; ++e) memory.length[e] = 0;
  memory.used.read += 3 * kPorts;
  memory.used.steps += static_cast<uint32_t>(tokens * kMaxExperts);

  // II = 16, an expert per cycle for the one unit of powers; the comparisons form a chain of 16 stages. A
  // queue's length is needed again 16 cycles later at the soonest.
  for (int t = 0; t < tokens; ++t) {
#pragma HLS pipeline II = 16
    int32_t logit[kMaxExperts];
#pragma HLS array_partition variable = logit complete
    for (int e = 0; e < kMaxExperts; ++e) logit[e] = memory.logit[t][e] + bias[e];
    uint32_t best[kMaxTopK] = {0, 0, 0, 0};
    int held = 0;
    for (uint32_t e = 0; e < kMaxExperts; ++e) {
      int place = held;  // behind everything that is as large
      for (int p = kMaxTopK - 1; p >= 0; --p)
        if (p < held && logit[e] > logit[best[p]]) place = p;
      if (e >= count || place >= top_k) continue;
      for (int p = kMaxTopK - 1; p > 0; --p)
        if (p > place) best[p] = best[p - 1];
      best[place] = e;
      if (held < top_k) ++held;
    }
    uint32_t part[kMaxExperts];
    int64_t total = 0;
    for (uint32_t e = 0; e < kMaxExperts; ++e) {
      if (e >= count) continue;
      part[e] = exp2_negative(scale(static_cast<int64_t>(logit[best[0]]) - logit[e], exponent));
      bool counted = !renormalise;
      for (int p = 0; p < top_k; ++p) counted = counted || best[p] == e;
      if (counted) total += part[e];
    }
    const int64_t reciprocal = (static_cast<int64_t>(1) << kReciprocalBits) / total;
    for (int p = 0; p < top_k; ++p) {
      constexpr int kBy = kReciprocalBits - kScoreBits;
      const uint32_t e = slot[best[p]];
      const uint16_t n = memory.length[e];
      memory.token[e][n] = static_cast<uint16_t>(t);
      memory.score[e][n] =
          static_cast<uint16_t>((part[best[p]] * reciprocal + (static_cast<int64_t>(1) << (kBy - 1))) >> kBy);
      memory.length[e] = static_cast<uint16_t>(n + 1);
    }
  }
  return kOk;
}

}  // namespace edgemtl
