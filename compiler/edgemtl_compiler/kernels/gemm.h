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

constexpr int kRows = 6;  // rows that one micro-kernel covers
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

enum class Epilogue { kNone, kGelu, kResidual, kScale, kAccumulate };

// width outputs per row, from `depth` inputs. b holds panels of 16 columns: value (k, column j of panel p)
// lies at p * panel_step + k * depth_step + j, whether it is a packed weight or another activation.
struct Product {
  Rows a;
  int depth = 0;
  const float* b = nullptr;
  ptrdiff_t panel_step = 0, depth_step = kPanel;
  const float* bias = nullptr;  // as many values as the panels have columns; none: zero
  int width = 0;
  Rows out;  // written
  Epilogue epilogue = Epilogue::kNone;
  Rows residual;                 // kResidual: added
  const float* scale = nullptr;  // kScale: out = scale[row] * value; kAccumulate: out += scale[row] * value
};

// Floats of a packed linear layer: the panels, then the bias.
inline ptrdiff_t linear_size(int width, int depth) {
  return static_cast<ptrdiff_t>(panels_of(width)) * kPanel * (depth + 1);
}

// A packed linear layer, as edgemtl/bundle/layout.py describes it.
inline void use_linear(Product& p, const float* packed, int width, int depth) {
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

// Rows [row, row + M) by panels [panel, panel + P): with M and P known the sums stay in registers.
template <int M, int P>
void micro(const Product& p, int row, int panel) {
  constexpr int V = P * kPanelVecs;
  const float* a[M];
  Vec acc[M][V];
  for (int j = 0; j < V; ++j) {
    const Vec start = p.bias ? load(p.bias + panel * kPanel + j * kLanes) : Vec{};
    for (int i = 0; i < M; ++i) acc[i][j] = start;
  }
  for (int i = 0; i < M; ++i) a[i] = p.a[row + i];
  const float* b = p.b + panel * p.panel_step;
  for (int k = 0; k < p.depth; ++k, b += p.depth_step) {
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
  alignas(64) float sums[M * V * kLanes];
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < V; ++j) store(sums + (i * V + j) * kLanes, acc[i][j]);
  finish(p, sums, row, M, panel, P);
}

using Micro = void (*)(const Product&, int row, int panel);

// Rows [row0, row1) by panels [panel0, panel1), at most kGroup of them.
inline void tile(const Product& p, int row0, int row1, int panel0, int panel1) {
#define EDGEMTL_ROW(P)                                                           \
  {                                                                              \
    micro<1, P>, micro<2, P>, micro<3, P>, micro<4, P>, micro<5, P>, micro<6, P> \
  }
#if defined(__AVX512F__)
  static constexpr Micro kMicro[kGroup][kRows] = {EDGEMTL_ROW(1), EDGEMTL_ROW(2), EDGEMTL_ROW(3),
                                                  EDGEMTL_ROW(4)};
#else
  static constexpr Micro kMicro[kGroup][kRows] = {EDGEMTL_ROW(1)};
#endif
#undef EDGEMTL_ROW
  for (int row = row0; row < row1; row += kRows)
    kMicro[panel1 - panel0 - 1][std::min(kRows, row1 - row) - 1](p, row, panel0);
}

// All panels [panel0, panel1) for rows [row0, row1), a group of panels at a time.
inline void block(const Product& p, int row0, int row1, int panel0, int panel1) {
  for (int panel = panel0; panel < panel1; panel += kGroup)
    tile(p, row0, row1, panel, std::min(panel1, panel + kGroup));
}

// The whole product of `rows` rows. Items run down the rows of one group of panels before the next group, so
// that each thread reads its own part of the weights once.
inline void multiply(const Product& p, int rows, int workers) {
  const int chunks = ceil_div(rows, kRowChunk), panels = panels_of(p.width);
  parallel_for(workers, chunks * ceil_div(panels, kGroup), [&](int item, int) {
    const int row = item % chunks * kRowChunk, panel = item / chunks * kGroup;
    tile(p, row, std::min(rows, row + kRowChunk), panel, std::min(panels, panel + kGroup));
  });
}

}  // namespace
}  // namespace edgemtl
