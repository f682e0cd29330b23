// An inverted residual (Sandler et al., CVPR 2018) as one kernel: expand, depthwise, project, and the input
// added.
//
// Each thread goes down its own strip of rows. It keeps as many expanded lines as the depthwise step sees, so
// what lies within never leaves the cache; where two strips meet, both make the lines that both see.
#pragma once

#include "convolution.h"

namespace edgemtl {
namespace {

// One vector of channels of `Pixels` neighbouring outputs: ReLU6(depthwise). in[j]: line j at the first
// pixel's left.
template <int Count>
inline void depthwise_pixels(const float* const* in, const float* taps, float* out, int d, const Window& w,
                             int dim) {
  Vec total[Count];
  const Vec bias = load(taps + static_cast<ptrdiff_t>(w.down) * w.across * dim + d);
#pragma GCC unroll 8
  for (int i = 0; i < Count; ++i) total[i] = bias;
  const ptrdiff_t step = static_cast<ptrdiff_t>(w.step_across) * dim;
  for (int j = 0; j < w.down; ++j) {
    const float *at = in[j] + d, *tap = taps + static_cast<ptrdiff_t>(j) * w.across * dim + d;
    for (int k = 0; k < w.across; ++k, at += dim, tap += dim) {
      const Vec weight = load(tap);
#pragma GCC unroll 8
      for (int i = 0; i < Count; ++i) total[i] += load(at + i * step) * weight;
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < Count; ++i)
    store(out + static_cast<ptrdiff_t>(i) * dim + d, minimum(splat(6.0f), maximum(Vec{}, total[i])));
}

// A line of out_width pixels of all `dim` channels, a multiple of 16. lines: padded, those that the kernel
// sees.
inline void depthwise_line(const float* const* lines, const float* taps, float* out, const Window& w,
                           int dim) {
  constexpr int kPixels = kLanes == 8 ? 6 : 8;  // with a tap and an input they fill the registers
  const ptrdiff_t step = static_cast<ptrdiff_t>(w.step_across) * dim;
  const float* in[kMostDown];
  for (int x = 0; x < w.out_width;) {
    for (int j = 0; j < w.down; ++j) in[j] = lines[j] + x * step;
    float* to = out + static_cast<ptrdiff_t>(x) * dim;
    const int left = w.out_width - x;
    for (int d = 0; d < dim; d += kLanes) {
      if (left >= kPixels) {
        depthwise_pixels<kPixels>(in, taps, to, d, w, dim);
      } else if (left >= 2) {
        depthwise_pixels<2>(in, taps, to, d, w, dim);
      } else {
        depthwise_pixels<1>(in, taps, to, d, w, dim);
      }
    }
    x += left >= kPixels ? kPixels : left >= 2 ? 2 : 1;
  }
}

// What every form of the kernel shares. expand(y, to, worker): the line y of the map as `dim` numbers a
// pixel; contract(lines, y, worker): the line y of the output, of the padded lines that the depthwise step
// sees.
template <class T, class Expand, class Contract>
inline void inverted_strips(const Window& w, int dim, const Expand& expand, const Contract& contract) {
  const int workers = threads(), strips = std::min(workers, w.out_height);
  const int padded = std::max(w.width + w.left, (w.out_width - 1) * w.step_across + w.across);
  const size_t line = Scratch::line(static_cast<size_t>(padded) * dim);
  const size_t words = Scratch::line((w.down + 1) * line * sizeof(T) / 4);
  Scratch scratch(workers * words);
  T* own[kMaxThreads];
  for (int t = 0; t < workers; ++t) own[t] = reinterpret_cast<T*>(scratch.array<int32_t>(words));

  parallel_for(workers, strips, [&](int item, int worker) {
    T *lines = own[worker], *nothing = lines + w.down * line;
    std::memset(lines, 0, (w.down + 1) * line * sizeof(T));  // the padding stays zero
    const int begin = item * w.out_height / strips, end = (item + 1) * w.out_height / strips;
    int next = std::max(0, begin * w.step_down - w.top);  // the first line not yet expanded
    const T* seen[kMostDown];
    for (int y = begin; y < end; ++y) {
      const int above = y * w.step_down - w.top;
      for (next = std::max(next, above); next < std::min(w.height, above + w.down); ++next)
        expand(next, lines + next % w.down * line + static_cast<ptrdiff_t>(w.left) * dim, worker);
      for (int j = 0; j < w.down; ++j) {
        const bool inside = above + j >= 0 && above + j < w.height;
        seen[j] = inside ? lines + (above + j) % w.down * line : nothing;
      }
      contract(seen, y, worker);
    }
  });
}

// x [height, width, inputs] to out [out_height, out_width, outputs]. expand: packed [middle, inputs], or
// none, and then the inputs are the middle; project: packed [outputs, middle].
inline void inverted_residual(const float* x, Packed expand, const float* taps, Packed project, float* out,
                              const Window& w, int inputs, int middle, int outputs, bool shortcut) {
  auto widen = [&](int y, float* to, int) {
    const float* from = x + static_cast<ptrdiff_t>(y) * w.width * inputs;
    if (!expand.data) {
      std::memcpy(to, from, static_cast<size_t>(w.width) * middle * sizeof(float));
      return;
    }
    Product p;
    use_linear(p, expand, middle, inputs);
    p.a = {from, inputs};
    p.out = {to, middle};
    p.epilogue = Epilogue::kRelu6;
    block(p, 0, w.width, 0, panels_of(middle));
  };
  const int workers = threads();
  const size_t line = Scratch::line(static_cast<size_t>(w.out_width) * middle);
  Scratch scratch(workers * line);
  float* own[kMaxThreads];
  for (int t = 0; t < workers; ++t) own[t] = scratch.array(line);
  inverted_strips<float>(w, middle, widen, [&](const float* const* seen, int y, int worker) {
    float* mixed = own[worker];
    depthwise_line(seen, taps, mixed, w, middle);
    const ptrdiff_t at = static_cast<ptrdiff_t>(y) * w.out_width * outputs;
    Product p;
    use_linear(p, project, outputs, middle);
    p.a = {mixed, middle};
    p.out = {out + at, outputs};
    if (shortcut) {
      p.epilogue = Epilogue::kResidual;
      p.residual = {x + at, outputs};
    }
    block(p, 0, w.out_width, 0, panels_of(outputs));
  });
}

}  // namespace
}  // namespace edgemtl
