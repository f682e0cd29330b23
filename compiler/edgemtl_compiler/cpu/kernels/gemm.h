// out = epilogue(a * b + bias) on tiles of rows and panels: the one matrix product that every kernel is made
// of.
//
// Rows of `a` are reached through pointers, so a gather costs nothing. Each output value is one chain of
// fused multiply-adds over the depth, in order, started from the bias: its bits depend on neither the tile it
// falls into nor the thread that computes it.
#pragma once

#include "pool.h"
#include "simd.h"

namespace edgemtl {
namespace {

// Rows that one micro-kernel covers. Four lanes: 5 x 16 sums, 4 weights and 5 inputs fill 29 of NEON's 32
// registers.
constexpr int kRows = kLanes == 4 ? 5 : 6;
constexpr int kRowChunk =
    4 * kRows;  // rows of a work item: enough to reuse a panel from the first-level cache

inline int ceil_div(int a, int b) { return (a + b - 1) / b; }
inline int panels_of(int width) { return ceil_div(width, kPanel); }

// Rows of a matrix, evenly spaced or, with `index`, picked.
struct Rows {
  const float* base = nullptr;
  ptrdiff_t stride = 0;
  const int32_t* index = nullptr;
  const float* operator[](int i) const { return base + stride * (index ? index[i] : i); }
};

enum class Epilogue { kNone, kGelu, kRelu, kRelu6, kResidual, kScale, kAccumulate };

// A packed layer, or several: numbers in single or half precision. Steps are counted in numbers.
struct Packed {
  const void* data = nullptr;
  bool half = false;
  Packed() = default;
  Packed(const float* values) : data(values) {}  // NOLINT: any float array is packed numbers
  Packed(const Half* values) : data(values), half(true) {}
  Packed operator+(ptrdiff_t n) const {
    return half ? Packed(static_cast<const Half*>(data) + n) : Packed(static_cast<const float*>(data) + n);
  }
};

// width outputs per row, from `depth` inputs. b holds panels of 16 columns: value (k, column j of panel p)
// lies at p * panel_step + k * depth_step + j, whether it is a packed weight or another activation.
struct Product {
  Rows a;
  int depth = 0;
  Packed b;
  ptrdiff_t panel_step = 0, depth_step = kPanel;
  Packed bias;  // of b's precision, as many values as the panels have columns; none: zero
  int width = 0;
  Rows out;  // written
  Epilogue epilogue = Epilogue::kNone;
  Rows residual;                 // kResidual: added
  const float* scale = nullptr;  // kScale: out = scale[row] * value; kAccumulate: out += scale[row] * value
};

// Numbers of a packed linear layer: the panels, then the bias.
inline ptrdiff_t linear_size(int width, int depth) {
  return static_cast<ptrdiff_t>(panels_of(width)) * kPanel * (depth + 1);
}

// A packed linear layer, as edgemtl/bundle/layout.py describes it.
inline void use_linear(Product& p, Packed packed, int width, int depth) {
  p.b = packed;
  p.panel_step = static_cast<ptrdiff_t>(depth) * kPanel;
  p.depth_step = kPanel;
  p.bias = packed + static_cast<ptrdiff_t>(panels_of(width)) * p.panel_step;
  p.width = width;
  p.depth = depth;
}

// Writes the finished sums of rows [row, row + m), `panels` panels each, one row after the other.
template <class Change>
void write(const Product& p, const float* sums, int row, int m, int panel, int panels, const Change& change) {
  const int first = panel * kPanel, end = std::min(p.width, first + panels * kPanel);
  for (int i = row; i < row + m; ++i, sums += panels * kPanel) {
    float* out = const_cast<float*>(p.out[i]);
    int at = first;
    for (; at + kLanes <= end; at += kLanes)
      store(out + at,
            change(load(sums + at - first), i, [&](const float* other) { return load(other + at); }));
    if (const int left = end - at; left > 0) {
      auto part = [&](const float* other) { return load_part(other + at, left); };
      store_part(out + at, change(load(sums + at - first), i, part), left);
    }
  }
}

__attribute__((noinline)) void finish(const Product& p, const float* sums, int row, int m, int panel,
                                      int panels) {
  switch (p.epilogue) {
    case Epilogue::kNone:
      return write(p, sums, row, m, panel, panels, [](Vec v, int, auto) { return v; });
    case Epilogue::kGelu:
      return write(p, sums, row, m, panel, panels, [](Vec v, int, auto) { return gelu(v); });
    case Epilogue::kRelu:
      return write(p, sums, row, m, panel, panels, [](Vec v, int, auto) { return maximum(v, Vec{}); });
    case Epilogue::kRelu6:
      return write(p, sums, row, m, panel, panels,
                   [](Vec v, int, auto) { return minimum(splat(6.0f), maximum(Vec{}, v)); });
    case Epilogue::kResidual:
      return write(p, sums, row, m, panel, panels,
                   [&](Vec v, int i, auto get) { return get(p.residual[i]) + v; });
    case Epilogue::kScale:
      return write(p, sums, row, m, panel, panels, [&](Vec v, int i, auto) { return v * p.scale[i]; });
    case Epilogue::kAccumulate:
      return write(p, sums, row, m, panel, panels,
                   [&](Vec v, int i, auto get) { return get(p.out[i]) + v * p.scale[i]; });
  }
}

// Memory that will be read next: `bytes` from `at` on, which a product's tiles fetch while they compute.
struct Ahead {
  const char* at = nullptr;
  ptrdiff_t bytes = 0;
  static constexpr int kStep = 128;  // bytes that one step of the depth fetches
};

#if defined(__ARM_NEON)
// One step of the depth: acc[i] += lane Lane of input[i] times the V vectors at b.
template <int Lane, int M, int V, class W>
inline void multiply_lane(Vec (&acc)[M][V], const Vec (&input)[M], const W* b) {
#pragma GCC unroll 8
  for (int j = 0; j < V; ++j) {
    const Vec column = load(b + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) acc[i][j] = vfmaq_laneq_f32(acc[i][j], column, input[i], Lane);
  }
  // GCC would widen the next step's half precision numbers now, for which there are no registers.
  if constexpr (sizeof(W) < sizeof(float)) asm volatile("" ::: "memory");
}
#endif

// Rows [row, row + M) by panels [panel, panel + P): with M and P known the sums stay in registers. W: what b
// is stored as. Each step of the depth fetches two lines from `ahead` on, which then moves by `step`.
template <class W, int M, int P>
void micro(const Product& p, int row, int panel, const char* ahead, int step) {
  constexpr int V = P * kPanelVecs;
  const float* a[M];
  const W* bias = static_cast<const W*>(p.bias.data);
  Vec acc[M][V];
#pragma GCC unroll 8
  for (int j = 0; j < V; ++j) {
    const Vec start = bias ? load(bias + panel * kPanel + j * kLanes) : Vec{};
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) acc[i][j] = start;
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) a[i] = p.a[row + i];
  const W* b = static_cast<const W*>(p.b.data) + panel * p.panel_step;
  int k = 0;
#if defined(__ARM_NEON)
  for (; k + 4 <= p.depth;
       k += 4) {  // NEON multiplies by any lane of a register: one load of a row serves four steps
    Vec four[M];
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) four[i] = load(a[i] + k);
    multiply_lane<0, M, V>(acc, four, b);
    multiply_lane<1, M, V>(acc, four, b + p.depth_step);
    multiply_lane<2, M, V>(acc, four, b + 2 * p.depth_step);
    multiply_lane<3, M, V>(acc, four, b + 3 * p.depth_step);
    b += 4 * p.depth_step;
  }
#endif
  for (; k < p.depth; ++k, b += p.depth_step, ahead += step) {
    __builtin_prefetch(ahead, 0, 2);
    __builtin_prefetch(ahead + 64, 0, 2);
    Vec column[V];
#pragma GCC unroll 8
    for (int j = 0; j < V; ++j) column[j] = load(b + j / kPanelVecs * p.panel_step + j % kPanelVecs * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      const Vec value = splat(a[i][k]);
#pragma GCC unroll 8
      for (int j = 0; j < V; ++j) acc[i][j] += value * column[j];
    }
  }
  if (p.epilogue == Epilogue::kNone && (panel + P) * kPanel <= p.width) {
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      float* out = const_cast<float*>(p.out[row + i]) + panel * kPanel;
#pragma GCC unroll 8
      for (int j = 0; j < V; ++j) store(out + j * kLanes, acc[i][j]);
    }
    return;
  }
  alignas(64) float sums[M * V * kLanes];
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < V; ++j) store(sums + (i * V + j) * kLanes, acc[i][j]);
  finish(p, sums, row, M, panel, P);
}

using Micro = void (*)(const Product&, int row, int panel, const char* ahead, int step);

template <class W>
inline Micro pick_micro(int rows, int panels) {
#define EDGEMTL_ROW(P)                                                                             \
  {                                                                                                \
    micro<W, 1, P>, micro<W, 2, P>, micro<W, 3, P>, micro<W, 4, P>, micro<W, 5, P>, micro<W, 6, P> \
  }
#if defined(__AVX512F__)
  static constexpr Micro kMicro[kGroup][6] = {EDGEMTL_ROW(1), EDGEMTL_ROW(2), EDGEMTL_ROW(3), EDGEMTL_ROW(4)};
#else
  static constexpr Micro kMicro[kGroup][6] = {EDGEMTL_ROW(1)};
#endif
#undef EDGEMTL_ROW
  return kMicro[panels - 1][rows - 1];
}

// Rows [row0, row1) by panels [panel0, panel1), at most kGroup of them.
inline void tile(const Product& p, int row0, int row1, int panel0, int panel1, Ahead ahead = {}) {
  const ptrdiff_t share = static_cast<ptrdiff_t>(p.depth) * Ahead::kStep;
  for (int row = row0; row < row1; row += kRows) {
    const int rows = std::min(kRows, row1 - row), panels = panel1 - panel0;
    const Micro run = p.b.half ? pick_micro<Half>(rows, panels) : pick_micro<float>(rows, panels);
    if (ahead.bytes > 0) {
      run(p, row, panel0, ahead.at, Ahead::kStep);
      ahead = {ahead.at + share, ahead.bytes - share};
    } else {
      run(p, row, panel0, static_cast<const char*>(p.b.data), 0);
    }
  }
}

// All panels [panel0, panel1) for rows [row0, row1), a group of panels at a time.
inline void block(const Product& p, int row0, int row1, int panel0, int panel1) {
  for (int panel = panel0; panel < panel1; panel += kGroup)
    tile(p, row0, row1, panel, std::min(panel1, panel + kGroup));
}

// Panels [panel, end) of a product whose b is a packed layer.
inline Ahead panels_ahead(const Product& p, int panel, int end) {
  const ptrdiff_t number = p.b.half ? sizeof(Half) : sizeof(float);
  return {static_cast<const char*>((p.b + panel * p.panel_step).data),
          std::max(0, end - panel) * p.panel_step * number};
}

// The whole product of `rows` rows with a packed layer. Items run down the rows of one group of panels before
// the next group, so that each thread reads its own part of the weights once; the last rows fetch the next
// group.
inline void multiply(const Product& p, int rows, int workers) {
  const int chunks = ceil_div(rows, kRowChunk), panels = panels_of(p.width);
  parallel_for(workers, chunks * ceil_div(panels, kGroup), [&](int item, int) {
    const int row = item % chunks * kRowChunk, panel = item / chunks * kGroup;
    const int end = std::min(panels, panel + kGroup);
    Ahead next;
    if (row + kRowChunk >= rows) next = panels_ahead(p, end, std::min(panels, end + kGroup));
    tile(p, row, std::min(rows, row + kRowChunk), panel, end, next);
  });
}

}  // namespace
}  // namespace edgemtl
