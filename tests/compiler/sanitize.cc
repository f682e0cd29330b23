// Runs every kernel over odd shapes with buffers of the exact size, for the sanitizers to watch. Prints
// "done".
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>

#include "attention.h"
#include "attention_i8.h"
#include "conv_head.h"
#include "experts.h"
#include "experts_i8.h"
#include "head_i8.h"
#include "inverted_residual_i8.h"
#include "linear.h"
#include "linear_i8.h"

using namespace edgemtl;

template <class T>
static void set(T& to, float value) {
  to = static_cast<T>(value);
}
static void set(Half& to, float value) { to.bits = static_cast<uint16_t>(value * 1000 + 20000); }

// Memory of exactly n values, so that a read or write past them is seen.
template <class T = float>
struct Exact {
  explicit Exact(size_t n, float scale = 1) : data(static_cast<T*>(std::malloc(n * sizeof(T)))) {
    static std::minstd_rand random(1);
    static std::mutex mutex;
    std::lock_guard<std::mutex> lock(mutex);
    for (size_t i = 0; i < n; ++i) set(data[i], scale * (static_cast<float>(random() % 2001) / 1000 - 1));
  }
  Exact(const Exact&) = delete;
  ~Exact() { std::free(data); }
  operator T*() const { return data; }
  T* data;
};

static size_t packed(int width, int depth) { return static_cast<size_t>(linear_size(width, depth)); }

static void all_kernels(int n, int heads, int size) {
  const int dim = heads * size;
  for (int width : {1, 17, 64, 65, 150}) {
    for (int depth : {1, 5, 48}) {
      Exact<> x(n * depth), w(packed(width, depth)), residual(n * width), out(n * width);
      linear(x, w.data, nullptr, out, n, depth, width, false);
      linear(x, w.data, nullptr, out, n, depth, width, true);
      linear(x, w.data, residual, out, n, depth, width, false);
      Exact<Half> half(packed(width, depth));
      linear(x, half.data, nullptr, out, n, depth, width, false);
    }
  }
  Exact<> x(n * dim), affine(2 * dim), qkv(3 * n * dim), out(n * dim), residual(n * dim);
  layernorm(x, affine, out, n, dim, 1e-6f);
  attention(qkv, out, n, heads, size);
  for (int columns : {3, 16, 37}) {
    const int k = 2;
    const int64_t path[3] = {0, 1, columns - 1};
    Exact<> gate(packed(columns, dim)), score(n * k);
    Exact<int64_t> index(n * k);
    route(x, gate, path, 3, columns, index, score, n, dim, k, columns == 3);
    for (int hidden : {1, 33}) {
      Exact<> a(packed(hidden, dim) + packed(dim, hidden)), b(packed(hidden, dim) + packed(dim, hidden)),
          c(packed(hidden, dim) + packed(dim, hidden));
      const Packed weights[3] = {a.data, b.data, c.data};
      if (!experts(x, index, score, residual, out, weights, 3, n, k, dim, hidden)) std::abort();
      index[n * k - 1] = 3;
      if (experts(x, index, score, residual, out, weights, 3, n, k, dim, hidden)) std::abort();
      index[n * k - 1] = 0;
    }
  }
  for (int tile : {1, 3}) {
    const Tiles map{2, n, tile, 32};
    const int pixels = map.height() * map.width();
    Exact<> from(pixels * 32), to(pixels * 32), taps(10 * 32), mix(packed(32, 32)), last(packed(19, 32)),
        image(pixels * 19);
    separable_step(from, taps, mix.data, to, map);
    to_map(to, last.data, image, 19, map);
  }
  const int patch = 5;
  Exact<> image(3 * patch * patch * n), w(packed(dim, 3 * patch * patch)), cls(dim), pos((n + 1) * dim),
      tokens((n + 1) * dim);
  patch_embed(image, w.data, cls, pos, tokens, patch, patch * n, patch, dim);
}

// Maps of odd sides; windows that see zeros on every side, skip pixels, or are larger than the map.
static Window window_of(int height, int width, int down, int across, int step, int before) {
  return {
      height, width, down, across, step, step, before, before, ceil_div(height, step), ceil_div(width, step)};
}

template <class Body>
static void each_window(const Body& body) {
  for (const auto& [height, width] : {std::pair(1, 1), {2, 7}, {9, 53}})
    for (const auto& [down, across] : {std::pair(1, 1), {3, 3}, {5, 2}, {5, 5}})
      for (int step : {1, 2}) body(window_of(height, width, down, across, step, step == 1 ? down / 2 : 0));
}

static void convolutions() {
  each_window([](const Window& w) {
    const int pixels = w.height * w.width, made = w.out_height * w.out_width;
    for (int dim : {3, 16})
      for (int channels : {1, 16, 70}) {
        Exact<> x(pixels * dim), weights(packed(channels, w.down * w.across * dim)), out(made * channels),
            residual(made * channels);
        for (bool planes : {false, true})
          convolution({x, w.height, w.width, dim, planes}, weights.data, nullptr, out, w, channels,
                      Epilogue::kRelu6);
        convolution({x, w.height, w.width, dim, false}, weights.data, residual, out, w, channels,
                    Epilogue::kResidual);
      }
  });
  for (const auto& [height, width] : {std::pair(2, 2), {4, 54}}) {
    const int dim = 16, channels = 20, pixels = height * width;
    Exact<> x(pixels * dim), half(pixels / 4 * dim), weights(packed(channels, 9 * dim)),
        out(pixels * channels), sum(pixels * dim);
    conv_relu(x, weights.data, out, height, width, dim, channels, false);
    conv_relu(half, weights.data, out, height, width, dim, channels, true);
    doubled_sum(half, x, sum, height, width, dim);
  }
}

struct LayerFloats : Exact<> {
  LayerFloats(int width, int depth) : Exact(packed(width, depth)) {}
};

// Layer: a packed layer of either kind; run(x, expand, taps, project, ...) the kernel that takes it.
template <class Layer, class Run>
static void inverted_residuals(const Run& run) {
  each_window([&](const Window& w) {
    const int middle = 48, pixels = w.height * w.width, made = w.out_height * w.out_width;
    Exact<> taps((w.down * w.across + 1) * middle), widest(pixels * middle), out(made * 23);
    Layer project(23, middle);
    if constexpr (std::is_same_v<Layer, LayerFloats>)  // INT8 always has a first step
      run(widest, Packed(), taps, project.data, out, w, middle, middle, 23, false);
    for (int inputs : {16, 23}) {
      Exact<> x(pixels * inputs);
      Layer expand(middle, inputs);
      run(x, expand.data, taps, project.data, out, w, inputs, middle, 23, inputs == 23 && made == pixels);
    }
  });
}

// A packed INT8 layer with codes -127..127 and the sums of its columns, as the compiler makes it.
struct LayerBytes {
  LayerBytes(int width, int depth) : data(LayerI8::bytes(width, depth)) {
    const int wide = panels_of(width) * kPanel, steps = steps_of(depth);
    std::memset(data, 0, LayerI8::bytes(width, depth));
    const float codes[2] = {0.01f, 0.1f};
    std::memcpy(data, codes, sizeof codes);
    int8_t* panels = reinterpret_cast<int8_t*>(data + 64);
    float* scale = reinterpret_cast<float*>(panels + static_cast<ptrdiff_t>(wide) * 4 * steps);
    int32_t* less = reinterpret_cast<int32_t*>(scale + 2 * wide);
    for (int n = 0; n < width; ++n) {
      scale[n] = 0.001f, scale[wide + n] = 0.5f;
      for (int k = 0; k < depth; ++k) {
        const int code = (n * 31 + k * 17) % 255 - 127;
        panels[((n / kPanel * steps + k / 4) * kPanel + n % kPanel) * 4 + k % 4] = static_cast<int8_t>(code);
        less[n] += 128 * code;
      }
    }
  }
  Exact<uint8_t> data;
};

static void int8_kernels(int n, int dim) {
  for (int width : {1, 17, 64, 65, 150}) {
    for (int depth : {1, 5, 48}) {
      Exact<> x(n * depth), residual(n * width), out(n * width), plain(n * width);
      LayerBytes w(width, depth);
      linear_i8(x, w.data, nullptr, plain, n, depth, width, false);
      linear_i8(x, w.data, nullptr, out, n, depth, width, true);
      linear_i8(x, w.data, residual, out, n, depth, width, false);
      // The sums are exact whatever the machine: the last of row 0, computed here.
      double want = 0.5;
      for (int k = 0; k < depth; ++k) {
        const Coding coding{1 / 0.01f, -0.1f / 0.01f};
        const float code = std::clamp(std::nearbyint(x[k] * coding.inverse + coding.shift), -127.0f, 127.0f);
        want += 0.001 * code * (((width - 1) * 31 + k * 17) % 255 - 127);
      }
      if (std::abs(plain[width - 1] - want) > 2e-2) std::abort();
    }
  }
  Exact<> x(n * dim), out(n * dim), residual(n * dim), score(n * 2);
  Exact<int64_t> index(n * 2);
  for (int hidden : {1, 33}) {
    LayerBytes first(hidden, dim), second(dim, hidden);
    mlp_i8(x, first.data, second.data, residual, out, n, dim, hidden);
    const ptrdiff_t sizes[2] = {LayerI8::bytes(hidden, dim), LayerI8::bytes(dim, hidden)};
    Exact<uint8_t> expert(sizes[0] + sizes[1]);
    std::memcpy(expert, first.data, sizes[0]);
    std::memcpy(expert + sizes[0], second.data, sizes[1]);
    const uint8_t* weights[3] = {expert, expert, expert};
    if (!experts_i8(x, index, score, residual, out, weights, 3, n, 2, dim, hidden)) std::abort();
    index[n * 2 - 1] = 3;
    if (experts_i8(x, index, score, residual, out, weights, 3, n, 2, dim, hidden)) std::abort();
    index[n * 2 - 1] = 0;
  }
  Exact<> qkv(3 * n * dim), exact(n * dim);
  attention(qkv, exact, n, dim / 16, 16);
  attention_i8(qkv, out, n, dim / 16, 16);
  for (int i = 0; i < n * dim; ++i)
    if (std::abs(out[i] - exact[i]) > 0.05) std::abort();
  Exact<> affine(2 * dim), sum(n * dim);
  LayerBytes square(dim, dim), wide(37, dim);
  attention_linear_i8(qkv, square.data, residual, sum, n, dim / 16, 16);
  Exact<> narrow(n * 37);
  norm_linear_i8(x, affine, 1e-6f, wide.data, narrow, n, dim, 37);
  qkv[0] = qkv[dim] = qkv[2 * dim] = NAN;
  attention_i8(qkv, out, n, dim / 16, 16);
  for (int tile : {1, 3}) {
    const Tiles map{2, n, tile, 32};
    const int pixels = map.height() * map.width();
    Exact<> from(pixels * 32), to(pixels * 32), taps(10 * 32);
    LayerBytes mix(32, 32);
    separable_step_i8(from, taps, mix.data, to, map);
  }
  const int patch = 5;
  Exact<> image(3 * patch * patch * n), cls(dim), pos((n + 1) * dim), tokens((n + 1) * dim);
  LayerBytes w(dim, 3 * patch * patch);
  patch_embed_i8(image, w.data, cls, pos, tokens, patch, patch * n, patch, dim);
}

int main() {
  for (int threads : {1, 2, 5}) {
    set_threads(threads);
    for (int n : {1, 6, 29}) all_kernels(n, 2, 16);
    all_kernels(50, 1, 80);
    for (int n : {1, 6, 29}) int8_kernels(n, 32);
    convolutions();
    inverted_residuals<LayerFloats>([](const auto&... given) { inverted_residual(given...); });
    inverted_residuals<LayerBytes>([](const auto&... given) { inverted_residual_i8(given...); });
  }
  // Two callers at once: one of them finds the pool taken.
  std::vector<std::thread> callers;
  for (int i = 0; i < 2; ++i)
    callers.emplace_back([] {
      set_threads(3);
      for (int r = 0; r < 5; ++r) all_kernels(31, 2, 16);
    });
  for (auto& caller : callers) caller.join();
  std::puts("done");
}
