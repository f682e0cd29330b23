// out = epilogue(scale * (codes * weights) + bias): the matrix product of gemm.h for INT8.
//
// Activations are codes of one byte, -127..127, static scales (Jacob et al., CVPR 2018); sums are exact
// INT32, so only the epilogue is float and no result depends on tiles or threads.
#pragma once

#include "dot_i8.h"
#include "gemm.h"

namespace edgemtl {
namespace {

constexpr int kRowChunkI8 = 24;  // rows of a work item

// Bytes of a row of `depth` codes: whole groups of four.
inline int code_bytes(int depth) { return ceil_div(depth, 4) * 4; }

inline uint8_t* code_rows(Scratch& scratch, int rows, int depth) {
  return reinterpret_cast<uint8_t*>(
      scratch.array<int32_t>(static_cast<size_t>(rows) * code_bytes(depth) / 4));
}
inline size_t code_room(int rows, int depth) {  // 4-byte values of scratch
  return Scratch::line(static_cast<size_t>(rows) * code_bytes(depth) / 4);
}

// Values to codes: rounded half to even, limited to -127..127, NaN as -127.
inline IntVec whole_codes(Vec v) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  return (IntVec)(minimum(maximum(v, splat(-127.0f)), splat(127.0f)) + kMagic) - 0x4b400000;
}

// Writes the first `left` of kLanes codes as bytes, as rows of dot_tile have them.
inline void store_whole(uint8_t* out, IntVec code, int left = kLanes) {
  typedef int8_t Bytes __attribute__((vector_size(kLanes)));
  const Bytes bytes = __builtin_convertvector(code + kCodeOffset, Bytes);
  std::memcpy(out, &bytes, left);
}

inline void store_codes(uint8_t* out, Vec v, int left = kLanes) { store_whole(out, whole_codes(v), left); }

// Fills a row up to a whole group of four; the weights there are zero, but codes must be defined.
inline void pad_codes(uint8_t* row, int depth) {
  for (int k = depth; k < code_bytes(depth); ++k) row[k] = kCodeOffset;
}

// Values to codes: value * inverse + shift, rounded.
struct Coding {
  float inverse = 1, shift = 0;
  Vec operator()(Vec v) const { return v * inverse + shift; }
};

// codes [rows, code_bytes(depth)] of x [rows, depth].
inline void to_codes(const float* x, Coding coding, uint8_t* codes, int rows, int depth) {
  constexpr int kChunk = 32;
  const int workers =
      rows * depth < (1 << 15) ? 1 : threads();  // below that, waking a thread costs more than it saves
  parallel_for(workers, ceil_div(rows, kChunk), [&](int item, int) {
    for (int row = item * kChunk; row < std::min(rows, (item + 1) * kChunk); ++row) {
      const float* in = x + static_cast<ptrdiff_t>(row) * depth;
      uint8_t* to = codes + static_cast<ptrdiff_t>(row) * code_bytes(depth);
      int k = 0;
      for (; k + kLanes <= depth; k += kLanes) store_codes(to + k, coding(load(in + k)));
      if (k < depth) store_codes(to + k, coding(load_part(in + k, depth - k)), depth - k);
      pad_codes(to, depth);
    }
  });
}

// GELU before INT8: Phi as a polynomial fitted on -4..4, |error| < 2e-4, far below half of any step that it
// is rounded to.
inline Vec gelu_coarse(Vec x) {
  const Vec z = minimum(maximum(x, splat(-4.0f)), splat(4.0f)), t = z * z;
  Vec p = t * 2.258763842633016e-08f - 1.5887952713455888e-06f;
  p = p * t + 4.7763191105332226e-05f;
  p = p * t - 0.000812180049251765f;
  p = p * t + 0.008763650432229042f;
  p = p * t - 0.06455431133508682f;
  p = p * t + 0.39787018299102783f;
  return x * (z * p + 0.5f);
}

// A packed INT8 layer, as edgemtl/bundle/packing.py describes it.
struct LayerI8 {
  Coding coding;  // of the input
  const int8_t* panels;
  const float *scale, *bias;
  const int32_t* less;

  static ptrdiff_t bytes(int width, int depth) {
    return 64 + static_cast<ptrdiff_t>(panels_of(width)) * kPanel * (code_bytes(depth) + 12);
  }
  LayerI8(const uint8_t* packed, int width, int depth) {
    const ptrdiff_t wide = static_cast<ptrdiff_t>(panels_of(width)) * kPanel;
    float codes[2];  // step, centre
    std::memcpy(codes, packed, sizeof codes);
    coding = {1 / codes[0], -codes[1] / codes[0]};
    panels = reinterpret_cast<const int8_t*>(packed + 64);
    scale = reinterpret_cast<const float*>(packed + 64 + wide * code_bytes(depth));
    bias = scale + wide;
    less = reinterpret_cast<const int32_t*>(bias + wide);
  }
};

// Rows of codes, evenly spaced or, with `index`, picked.
struct CodeRows {
  const uint8_t* base;
  ptrdiff_t stride;
  const int32_t* index = nullptr;
  const uint8_t* operator[](int i) const { return base + stride * (index ? index[i] : i); }
};

// What becomes of scale * sum + bias: the epilogues of gemm.h, or GELU and then codes for the next layer.
struct ProductI8 {
  ProductI8(const LayerI8& layer, CodeRows a, int width, int depth)
      : a(a), layer(layer), width(width), steps(code_bytes(depth) / 4) {}
  ptrdiff_t panel_step() const { return static_cast<ptrdiff_t>(steps) * kStepBytes; }

  CodeRows a;
  LayerI8 layer;
  int width, steps;
  Epilogue epilogue = Epilogue::kNone;
  Rows out, residual;
  const float* scale = nullptr;  // kAccumulate: out += scale[row] * value
  uint8_t* codes = nullptr;      // if given, instead of `out`: rows of code_bytes(width)
  Coding coding;                 // of `codes`
};

// Writes the finished values of rows [row, row + M), P panels each. `open(i)` gives what takes row i's
// vectors: take(column, values, how many), the count being a constant but for the last vector of a narrow
// layer.
template <int M, int P, class Open>
inline void each_row(const ProductI8& p, const int32_t* sums, int row, int panel, const Open& open) {
  constexpr int V = P * kPanelVecs;
  const int first = panel * kPanel, count = std::min(p.width - first, P * kPanel);
  const float *scale = p.layer.scale + first, *bias = p.layer.bias + first;
  auto value = [&](const int32_t* from, int at) {
    IntVec sum;
    std::memcpy(&sum, from + at, sizeof sum);
    return __builtin_convertvector(sum, Vec) * load(scale + at) + load(bias + at);
  };
  if (count == P * kPanel) {
    for (int i = 0; i < M; ++i, sums += P * kPanel) {
      const auto take = open(row + i);
#pragma GCC unroll 8
      for (int j = 0; j < V; ++j)
        take(first + j * kLanes, value(sums, j * kLanes), std::integral_constant<int, kLanes>());
    }
    return;
  }
  for (int i = 0; i < M; ++i, sums += P * kPanel) {
    const auto take = open(row + i);
    for (int at = 0; at < count; at += kLanes)
      take(first + at, value(sums, at), std::min(kLanes, count - at));
  }
}

inline Vec load_some(const float* p, int n) { return n == kLanes ? load(p) : load_part(p, n); }
inline void store_some(float* p, Vec v, int n) { n == kLanes ? store(p, v) : store_part(p, v, n); }

template <int M, int P>
inline void finish(const ProductI8& p, const int32_t* sums, int row, int panel) {
  auto to = [&](int i) { return const_cast<float*>(p.out[i]); };
  auto all = [&](const auto& open) { each_row<M, P>(p, sums, row, panel, open); };
  if (p.codes) {
    const ptrdiff_t stride = code_bytes(p.width);
    const Coding coding = p.coding;
    all([&](int i) {
      uint8_t* codes = p.codes + i * stride;
      return [=](int at, Vec v, int n) { store_codes(codes + at, coding(gelu_coarse(v)), n); };
    });
    if ((panel + P) * kPanel >= p.width)
      for (int i = row; i < row + M; ++i) pad_codes(p.codes + i * stride, p.width);
    return;
  }
  switch (p.epilogue) {
    case Epilogue::kGelu:
      return all(
          [&](int i) { return [out = to(i)](int at, Vec v, int n) { store_some(out + at, gelu(v), n); }; });
    case Epilogue::kResidual:
      return all([&](int i) {
        return [out = to(i), other = p.residual[i]](int at, Vec v, int n) {
          store_some(out + at, load_some(other + at, n) + v, n);
        };
      });
    case Epilogue::kAccumulate:
      return all([&](int i) {
        return [out = to(i), scale = splat(p.scale[i])](int at, Vec v, int n) {
          store_some(out + at, load_some(out + at, n) + v * scale, n);
        };
      });
    default:
      return all([&](int i) { return [out = to(i)](int at, Vec v, int n) { store_some(out + at, v, n); }; });
  }
}

template <int M, int P>
void micro_i8(const ProductI8& p, int row, int panel) {
  const uint8_t* a[M];
  for (int i = 0; i < M; ++i) a[i] = p.a[row + i];
  if (!p.codes)  // the output's lines come while the sums are made
    for (int i = 0; i < M; ++i)
      for (int j = 0; j < P; ++j) __builtin_prefetch(p.out[row + i] + (panel + j) * kPanel, 1);
  alignas(64) int32_t sums[M * P * kPanel];
  dot_tile<M, P>(a, p.layer.panels + panel * p.panel_step(), p.panel_step(), p.layer.less + panel * kPanel,
                 p.steps, sums);
  finish<M, P>(p, sums, row, panel);
}

// Micro-kernel of `rows` rows out of 1 .. M, `panels` panels out of 1 .. P.
template <int M = kDotRows, int P = kDotGroup>
void micro_i8_of(const ProductI8& p, int rows, int panels, int row, int panel) {
  if constexpr (M > 1)
    if (rows < M) return micro_i8_of<M - 1, P>(p, rows, panels, row, panel);
  if constexpr (P > 1)
    if (panels < P) return micro_i8_of<M, P - 1>(p, rows, panels, row, panel);
  micro_i8<M, P>(p, row, panel);
}

// Rows [row0, row1) by panels [panel0, panel1).
inline void block(const ProductI8& p, int row0, int row1, int panel0, int panel1) {
  for (int panel = panel0; panel < panel1; panel += kDotGroup)
    for (int row = row0; row < row1; row += kDotRows)
      micro_i8_of(p, std::min(kDotRows, row1 - row), std::min(kDotGroup, panel1 - panel), row, panel);
}

// The whole product of `rows` rows; items run down the rows of a group of panels before the next.
inline void multiply(const ProductI8& p, int rows, int workers) {
  const int chunks = ceil_div(rows, kRowChunkI8), panels = panels_of(p.width);
  parallel_for(workers, chunks * ceil_div(panels, kDotGroup), [&](int item, int) {
    const int row = item % chunks * kRowChunkI8, panel = item / chunks * kDotGroup;
    block(p, row, std::min(rows, row + kRowChunkI8), panel, std::min(panels, panel + kDotGroup));
  });
}

}  // namespace
}  // namespace edgemtl
