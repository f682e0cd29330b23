// Tokens queued by expert: a counting sort of the gate's choices (M3ViT's computation reordering, Liang et
// al., NeurIPS 2022), for the expert kernels of every precision.
//
// No capacity and no padding: an expert's queue is as long as its tokens are many, and may be empty.
#pragma once

#include "pool.h"

namespace edgemtl {
namespace {

// Queue e is the pairs [start[e], start[e + 1]): `token` is the pair's row, `weight` its score. Within a
// queue tokens ascend. The arrays are the scratch's.
struct Queues {
  int count;  // of experts
  int32_t *start, *token;
  float* weight;

  // 4-byte values of scratch that `count` experts and `pairs` choices need.
  static size_t room(int count, int pairs) { return 2 * Scratch::line(count + 1) + 2 * Scratch::line(pairs); }

  int length(int expert) const { return start[expert + 1] - start[expert]; }

  // The first expert after this one that has tokens; `count` if none has.
  int next(int expert) const {
    do ++expert;
    while (expert < count && length(expert) == 0);
    return expert;
  }
};

// Sorts n tokens by the k experts that each chose; index and score are [n, k]. False when an index is not in
// [0, count).
inline bool queue_tokens(Scratch& scratch, const int64_t* index, const float* score, int count, int n, int k,
                         Queues& queues) {
  const int pairs = n * k;
  queues = {count, scratch.array<int32_t>(count + 1), scratch.array<int32_t>(pairs), scratch.array(pairs)};
  int32_t* cursor = scratch.array<int32_t>(count + 1);
  std::fill(queues.start, queues.start + count + 1, 0);
  for (int i = 0; i < pairs; ++i) {
    if (index[i] < 0 || index[i] >= count) return false;
    ++queues.start[index[i] + 1];
  }
  for (int e = 0; e < count; ++e) {
    queues.start[e + 1] += queues.start[e];
    cursor[e] = queues.start[e];
  }
  for (int i = 0; i < pairs; ++i) {
    const int at = cursor[index[i]]++;
    queues.token[at] = i / k;
    queues.weight[at] = score[i];
  }
  return true;
}

}  // namespace
}  // namespace edgemtl
