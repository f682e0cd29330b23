// Runs every kernel over odd shapes with buffers of the exact size, for the sanitizers to watch. Prints
// "done".
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>

#include "attention.h"
#include "experts.h"
#include "head.h"
#include "linear.h"

using namespace edgemtl;

// Memory of exactly n values, so that a read or write past them is seen.
template <class T = float>
struct Exact {
  explicit Exact(size_t n, float scale = 1) : data(static_cast<T*>(std::malloc(n * sizeof(T)))) {
    static std::minstd_rand random(1);
    static std::mutex mutex;
    std::lock_guard<std::mutex> lock(mutex);
    for (size_t i = 0; i < n; ++i)
      data[i] = static_cast<T>(scale * (static_cast<float>(random() % 2001) / 1000 - 1));
  }
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
      linear(x, w, nullptr, out, n, depth, width, false);
      linear(x, w, nullptr, out, n, depth, width, true);
      linear(x, w, residual, out, n, depth, width, false);
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
      const float* weights[3] = {a, b, c};
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
    separable_step(from, taps, mix, to, map);
    to_map(to, last, image, 19, map);
  }
  const int patch = 5;
  Exact<> image(3 * patch * patch * n), w(packed(dim, 3 * patch * patch)), cls(dim), pos((n + 1) * dim),
      tokens((n + 1) * dim);
  patch_embed(image, w, cls, pos, tokens, patch, patch * n, patch, dim);
}

int main() {
  for (int threads : {1, 2, 5}) {
    set_threads(threads);
    for (int n : {1, 6, 29}) all_kernels(n, 2, 16);
    all_kernels(50, 1, 80);
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
