// Multi-head self-attention with INT8 products; the softmax between them stays float.
//
// Every query, every key, and every channel of a head's values has a scale of its own, taken from the numbers
// at hand (dynamic quantisation), so nothing is calibrated. A weight of the softmax is a whole number of
// 254ths of its row's largest, and a row is divided by the sum of those whole numbers: rounding leaves their
// sum one.
#pragma once

#include "attention.h"
#include "gemm_i8.h"

namespace edgemtl {
namespace {

// What takes values of magnitudes up to `reach` to -127 .. 127; zero for zeros.
inline float inverse_of(float reach) { return reach > 0 ? 127.0f / reach : 0.0f; }

inline Vec magnitude(Vec v) { return maximum(-v, v); }

// Codes [size] of a query or key; returns what one of them is worth. `store` writes codes at a place.
template <class Store>
inline float own_codes(const float* x, int size, const Store& store) {
  Vec high = {};
  for (int k = 0; k < size; k += kLanes) high = maximum(high, magnitude(load(x + k)));
  const float reach = maximum(high), inverse = inverse_of(reach);
  for (int k = 0; k < size; k += kLanes) store(k, whole_codes(load(x + k) * inverse));
  return reach / 127.0f;
}

// One head's keys or values as weights of dot_tile: panels of 16 columns, and for each column what one of its
// codes is worth and 128 times the sum of its codes.
struct CodedPanels {
  Weight* panels;
  float* scale;
  int32_t* less;
  // From panel `panel` on; a panel takes `step` weights.
  CodedPanels at(int panel, ptrdiff_t step) const {
    return {panels + panel * step, scale + panel * kPanel, less + panel * kPanel};
  }
};

// A panel of 16 keys, `row` apart, of which `count` are there; the rest repeat the last, which changes no
// maximum. work: room for 16 * size numbers.
inline void pack_keys(const float* from, ptrdiff_t row, int count, int size, const CodedPanels& to,
                      int32_t* work) {
  for (int j = 0; j < kPanel; ++j) {
    Weight* codes = reinterpret_cast<Weight*>(work) + j * size;
    to.scale[j] = own_codes(from + std::min(j, count - 1) * row, size,
                            [&](int k, IntVec code) { store_narrow(codes + k, code); });
  }
  // Codes that fill four bytes move as one number.
  const int words = size / kWordCodes;
  transpose_panel(reinterpret_cast<const float*>(work), words, kPanel, words,
                  reinterpret_cast<float*>(to.panels));
  close_panel(to.panels, size / 4);
  if (!kCodeOffset) return;  // and no sums are needed
  for (int at = 0; at < kPanel; at += kLanes) {
    IntVec total = {};
    for (int k = 0; k < size / 4; ++k) {
      IntVec four;
      std::memcpy(&four, to.panels + k * kStep + 4 * at, sizeof four);
      total += (four << 24 >> 24) + (four << 16 >> 24) + (four << 8 >> 24) + (four >> 24);
    }
    total *= 128;
    std::memcpy(to.less + at, &total, sizeof total);
  }
}

// A panel of 16 channels of the values of n tokens, `row` apart, four tokens a step.
inline void pack_values(const float* from, ptrdiff_t row, int n, const CodedPanels& to) {
  for (int at = 0; at < kPanel; at += kLanes) {
    auto value = [&](int i) { return load(from + i * row + at); };
    Vec high = {}, inverse;
    for (int i = 0; i < n; ++i) high = maximum(high, magnitude(value(i)));
    for (int j = 0; j < kLanes; ++j) inverse[j] = inverse_of(high[j]);
    store(to.scale + at, high / 127.0f);
    IntVec total = {};
    constexpr int kBits = 8 * sizeof(Weight);
    for (int i = 0; i < 4 * steps_of(n); i += kWordCodes) {
      IntVec word = {};
      for (int j = 0; j < std::min(kWordCodes, n - i); ++j) {
        const IntVec code = whole_codes(value(i + j) * inverse);
        total += code;
        word |= (code & ((1 << kBits) - 1)) << kBits * j;
      }
      std::memcpy(to.panels + (i * kPanel + at * kWordCodes), &word, sizeof word);
    }
    total *= 128;
    std::memcpy(to.less + at, &total, sizeof total);
  }
  close_panel(to.panels, steps_of(n));
}

// Codes of exp((score - top) * rate) for n scores, top their largest, in 254ths, less 127; as many as n
// rounded up to whole vectors. Returns the sum of the 254ths.
inline float softmax_codes(const float* scores, int n, float top, float rate, Code* codes) {
  static const int32_t kIndex[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  constexpr float kMagic = 12582912.0f;   // as in whole_codes
  constexpr float kLevels = 7.98868469f;  // log2 254
  const float octaves = rate * 1.44269504088896341f;
  IntVec total = {}, index;
  std::memcpy(&index, kIndex, sizeof index);
  auto level = [&](int j) {
    const IntVec out = (IntVec)(exp2((load(scores + j) - top) * octaves + kLevels) + kMagic) - 0x4b400000;
    store_whole(codes + j, out - 127);
    return out;
  };
  int j = 0;
  for (; j + kLanes <= n; j += kLanes) total += level(j);
  if (j < n) total += level(j) & (index < n - j);
  return sum(__builtin_convertvector(total, Vec));  // exact: below 2^24 up to 66,000 tokens
}

constexpr int kMostQueries = 2 * kDotRows;

// take(row, column, sums) for `count` rows of codes, at most kMostQueries, times all `panels` of b, kLanes
// columns at a time.
template <class Take>
inline void multiply_codes(const Code* const* rows, int count, const CodedPanels& b, int panels, int steps,
                           const Take& take) {
  alignas(64) int32_t sums[kMostQueries * kDotGroup * kPanel];
  auto give = [&](int column, auto width) {
    for (int i = 0; i < count; ++i)
      for (int at = 0; at < width; at += kLanes) {
        IntVec sum;
        std::memcpy(&sum, sums + i * width + at, sizeof sum);
        take(i, column + at, sum);
      }
  };
  for (int panel = 0; panel < panels; panel += kDotGroup) {
    const int group = std::min(kDotGroup, panels - panel), column = panel * kPanel;
    for (int i = 0; i < count; i += kDotRows)
      dot_tile_of(std::min(kDotRows, count - i), group, rows + i, b.panels + panel * panel_weights(steps),
                  b.less + column, steps, sums + i * group * kPanel);
    if (group == kDotGroup) {
      give(column, std::integral_constant<int, kDotGroup * kPanel>());
    } else {
      give(column, group * kPanel);
    }
  }
}

// qkv [n, 3 * heads * size] (queries, keys, values; each head's `size` values together; size a multiple of
// 16) to attention's output, which take(row, column, values) gets, kLanes columns at a time.
template <class Take>
inline void attention_i8(const float* qkv, int n, int heads, int size, const Take& take) {
  const int chunk = n <= 512 ? kMostQueries : kDotRows;  // as in attention.h
  const int dim = heads * size, row = 3 * dim, panels = panels_of(n), padded = panels * kPanel,
            channels = size / kPanel, key_steps = size / 4, value_steps = steps_of(n), workers = threads(),
            query_stride = code_stride(size), weight_stride = row_codes(padded / 4);
  const ptrdiff_t key_panel = panel_weights(key_steps), value_panel = panel_weights(value_steps);
  const size_t keys_size = heads * panels * key_panel / kWordCodes,
               values_size = heads * channels * value_panel / kWordCodes,
               work_size = chunk * (padded + (weight_stride + query_stride) / kWordCodes) +
                           kPanel * size / kWordCodes;
  Scratch scratch(keys_size + values_size + 2 * heads * (padded + size) + workers * Scratch::line(work_size));
  auto coded = [&](size_t codes, int columns) {
    Weight* panels = reinterpret_cast<Weight*>(scratch.array<int32_t>(codes));
    float* scale = scratch.array(columns);
    return CodedPanels{panels, scale, scratch.array<int32_t>(columns)};
  };
  const CodedPanels keys = coded(keys_size, heads * padded), values = coded(values_size, dim);
  int32_t* work[kMaxThreads];
  for (int t = 0; t < workers; ++t) work[t] = scratch.array<int32_t>(work_size);

  parallel_for(workers, heads * (channels + panels), [&](int item, int worker) {
    if (item < heads * channels)
      return pack_values(qkv + 2 * dim + item * kPanel, row, n, values.at(item, value_panel));
    item -= heads * channels;
    const int head = item / panels, first = item % panels * kPanel;
    pack_keys(qkv + static_cast<ptrdiff_t>(first) * row + dim + head * size, row, std::min(kPanel, n - first),
              size, keys.at(item, key_panel), work[worker]);
  });

  const int chunks = ceil_div(n, chunk);
  parallel_for(workers, heads * chunks, [&](int item, int worker) {
    const int head = item / chunks, first = item % chunks * chunk, count = std::min(chunk, n - first);
    float* scores = reinterpret_cast<float*>(work[worker]);
    Code* weights = reinterpret_cast<Code*>(scores + chunk * padded);
    Code* queries = weights + chunk * weight_stride;
    const Code *query[kMostQueries], *weight[kMostQueries];
    float scale[kMostQueries];
    Vec top[kMostQueries];
    for (int i = 0; i < count; ++i) {
      Code* codes = queries + i * query_stride;
      scale[i] = own_codes(qkv + static_cast<ptrdiff_t>(first + i) * row + head * size, size,
                           [&](int k, IntVec code) { store_whole(codes + k, code); });
      close_row(codes, key_steps);
      query[i] = codes;
      weight[i] = weights + i * weight_stride;
      top[i] = splat(-INFINITY);
    }
    const CodedPanels k = keys.at(head * panels, key_panel), v = values.at(head * channels, value_panel);
    multiply_codes(query, count, k, panels, key_steps, [&](int i, int column, IntVec sum) {
      const Vec score = __builtin_convertvector(sum, Vec) * load(k.scale + column);
      store(scores + i * padded + column, score);
      top[i] = maximum(top[i], score);
    });
    const float rate = 1.0f / std::sqrt(static_cast<float>(size));
    for (int i = 0; i < count; ++i) {
      Code* codes = weights + i * weight_stride;
      scale[i] = 1.0f / softmax_codes(scores + i * padded, n, maximum(top[i]), scale[i] * rate, codes);
      close_row(codes, value_steps);
    }
    multiply_codes(weight, count, v, channels, value_steps, [&](int i, int column, IntVec sum) {
      IntVec codes;
      std::memcpy(&codes, v.less + column, sizeof codes);
      sum += codes - (codes >> 7);  // 127 times the sum of the values' codes: weights are codes plus 127
      take(first + i, head * size + column,
           __builtin_convertvector(sum, Vec) * load(v.scale + column) * scale[i]);
    });
  });
}

// out [n, heads * size].
inline void attention_i8(const float* qkv, float* out, int n, int heads, int size) {
  const ptrdiff_t dim = heads * size;
  attention_i8(qkv, n, heads, size, [=](int row, int column, Vec v) { store(out + row * dim + column, v); });
}

// out [n, dim] = residual + attention * w + b, dim = heads * size; what lies between are codes.
inline void attention_linear_i8(const float* qkv, const uint8_t* packed, const float* residual, float* out,
                                int n, int heads, int size) {
  const int dim = heads * size;
  const LayerI8 layer(packed, dim, dim);
  Scratch scratch(code_room(n, dim));
  Code* codes = code_rows(scratch, n, dim);
  const ptrdiff_t stride = code_stride(dim);
  attention_i8(qkv, n, heads, size, [&](int row, int column, Vec v) {
    store_codes(codes + row * stride + column, layer.coding(v));
  });
  close_rows(codes, n, dim);
  ProductI8 p(layer, {codes, stride}, dim, dim);
  p.out = {out, dim};
  p.epilogue = Epilogue::kResidual;
  p.residual = {residual, dim};
  multiply(p, n, threads());
}

}  // namespace
}  // namespace edgemtl
