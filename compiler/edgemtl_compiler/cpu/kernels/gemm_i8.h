// out = epilogue(scale * (codes * weights) + bias): the matrix product of gemm.h for INT8.
//
// Activations are codes of one byte, -127..127, static scales (Jacob et al., CVPR 2018); sums are exact
// INT32, so only the epilogue is float and no result depends on tiles or threads.
#pragma once

#include "dot_i8.h"
#include "gemm.h"

namespace edgemtl {
namespace {

constexpr int kWordCodes = 4 / sizeof(Code);                // codes, or weights, of four bytes
constexpr bool kAsStored = std::is_same_v<Weight, int8_t>;  // panels need not be opened
// Rows of a work item: opening a panel must not count beside them.
constexpr int kRowChunkI8 = kAsStored ? 24 : 192;

inline int steps_of(int depth) { return ceil_div(depth, 4); }
inline int code_stride(int depth) { return row_codes(steps_of(depth)); }

inline size_t code_words(int rows, int depth) {
  return static_cast<size_t>(rows) * code_stride(depth) / kWordCodes;
}
inline Code* code_rows(Scratch& scratch, int rows, int depth) {
  return reinterpret_cast<Code*>(scratch.array<int32_t>(code_words(rows, depth)));
}
inline size_t code_room(int rows, int depth) {  // 4-byte values of scratch
  return Scratch::line(code_words(rows, depth));
}

// Values to codes: rounded half to even, limited to -127..127, NaN as -127.
inline IntVec whole_codes(Vec v) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  return (IntVec)(minimum(maximum(v, splat(-127.0f)), splat(127.0f)) + kMagic) - 0x4b400000;
}

// Writes the first `left` of kLanes whole numbers as a row's or a panel's codes.
template <class T>
inline void store_narrow(T* out, IntVec code, int left = kLanes) {
  typedef T Narrow __attribute__((vector_size(kLanes * sizeof(T))));
  const Narrow narrow = __builtin_convertvector(code, Narrow);
  std::memcpy(out, &narrow, left * sizeof(T));
}

inline void store_whole(Code* out, IntVec code, int left = kLanes) {
  store_narrow(out, code + kCodeOffset, left);
}

inline void store_codes(Code* out, Vec v, int left = kLanes) { store_whole(out, whole_codes(v), left); }

// Completes a row of `depth` codes for dot_tile. Weights past the depth are zero, but codes must be defined.
inline void close_codes(Code* row, int depth) {
  for (int k = depth; k < 4 * steps_of(depth); ++k) row[k] = kCodeOffset;
  close_row(row, steps_of(depth));
}

// body(row) for all rows of `depth` values; with few values, on this thread: waking another costs more than
// it saves.
template <class Body>
inline void each_row_of(int rows, int depth, const Body& body) {
  constexpr int kChunk = 32;
  parallel_for(rows * depth < (1 << 15) ? 1 : threads(), ceil_div(rows, kChunk), [&](int item, int) {
    for (int row = item * kChunk; row < std::min(rows, (item + 1) * kChunk); ++row) body(row);
  });
}

inline void close_rows(Code* codes, int rows, int depth) {
  if (kAsStored && depth % 4 == 0) return;
  const ptrdiff_t stride = code_stride(depth);
  each_row_of(rows, depth, [=](int row) { close_codes(codes + row * stride, depth); });
}

// Values to codes: value * inverse + shift, rounded.
struct Coding {
  float inverse = 1, shift = 0;
  Vec operator()(Vec v) const { return v * inverse + shift; }
};

// codes [rows, code_stride(depth)] of x [rows, depth].
inline void to_codes(const float* x, Coding coding, Code* codes, int rows, int depth) {
  each_row_of(rows, depth, [=](int row) {
    const float* in = x + static_cast<ptrdiff_t>(row) * depth;
    Code* to = codes + static_cast<ptrdiff_t>(row) * code_stride(depth);
    int k = 0;
    for (; k + kLanes <= depth; k += kLanes) store_codes(to + k, coding(load(in + k)));
    if (k < depth) store_codes(to + k, coding(load_part(in + k, depth - k)), depth - k);
    close_codes(to, depth);
  });
}

// GELU before INT8: Phi as a polynomial fitted on -4..4, |error| < 2e-4, far below half of any step that it
// is rounded to. Of N vectors side by side: one alone would wait for each of its multiply-adds.
template <int N>
inline void gelu_coarse(Vec (&x)[N]) {
  constexpr float kPhi[] = {-1.5887952713455888e-06f, 4.7763191105332226e-05f, -0.000812180049251765f,
                            0.008763650432229042f,    -0.06455431133508682f,   0.39787018299102783f};
  Vec z[N], t[N], p[N];
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
    z[i] = minimum(maximum(x[i], splat(-4.0f)), splat(4.0f));
    t[i] = z[i] * z[i];
    p[i] = t[i] * 2.258763842633016e-08f + kPhi[0];
  }
#pragma GCC unroll 5
  for (int k = 1; k < 6; ++k)
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) p[i] = p[i] * t[i] + kPhi[k];
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) x[i] = x[i] * (z[i] * p[i] + 0.5f);
}

constexpr float kLevels = 127.0f / 6.0f;  // levels, 0..127, of one: what ReLU6 leaves, between INT8 layers

// Writes a panel's values, in levels, as bytes: rounded half to even, limited to 0..127, NaN as 0.
inline void store_levels(uint8_t* out, const Vec* values) {
#if defined(__AVX512F__)
  const __m512i whole = _mm512_maskz_cvtps_epi32(0xffff, (__m512)minimum(splat(127.0f), values[0]));
  const __m128i bytes = _mm512_maskz_cvtsepi32_epi8(0xffff, whole);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_max_epi8(bytes, _mm_setzero_si128()));
#elif defined(__AVX2__)
  auto whole = [&](int i) { return _mm256_cvtps_epi32((__m256)minimum(splat(127.0f), values[i])); };
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(whole(0), whole(1)), 0xd8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_max_epi8(bytes, _mm_setzero_si128()));
#else
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  for (int i = 0; i < kPanelVecs; ++i) {
    const Vec v = minimum(splat(127.0f), maximum(values[i], Vec{})) + kMagic;
    store_narrow(out + i * kLanes, (IntVec)v - 0x4b400000);
  }
#endif
}

// The same of four panels side by side.
inline void store_four_levels(uint8_t* out, const Vec* values) {
#if defined(__AVX512F__)
  auto whole = [&](int i) {
    return _mm512_maskz_cvtps_epi32(0xffff, (__m512)minimum(splat(127.0f), values[i]));
  };
  const __m512i words[2] = {_mm512_packs_epi32(whole(0), whole(1)), _mm512_packs_epi32(whole(2), whole(3))};
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i bytes = _mm512_maskz_permutexvar_epi32(0xffff, order, _mm512_packs_epi16(words[0], words[1]));
  _mm512_storeu_si512(out, _mm512_max_epi8(bytes, _mm512_setzero_si512()));
#else
  for (int i = 0; i < 4; ++i) store_levels(out + i * kPanel, values + i * kPanelVecs);
#endif
}

// A packed INT8 layer, as edgemtl/bundle/packing.py describes it.
struct LayerI8 {
  Coding coding;  // of the input
  const int8_t* panels;
  const float *scale, *bias;
  const int32_t* less;

  static ptrdiff_t bytes(int width, int depth) {
    return 64 + static_cast<ptrdiff_t>(panels_of(width)) * kPanel * (4 * steps_of(depth) + 12);
  }
  LayerI8(const uint8_t* packed, int width, int depth) {
    const ptrdiff_t wide = static_cast<ptrdiff_t>(panels_of(width)) * kPanel;
    float codes[2];  // step, centre
    std::memcpy(codes, packed, sizeof codes);
    coding = {1 / codes[0], -codes[1] / codes[0]};
    panels = reinterpret_cast<const int8_t*>(packed + 64);
    scale = reinterpret_cast<const float*>(packed + 64 + wide * 4 * steps_of(depth));
    bias = scale + wide;
    less = reinterpret_cast<const int32_t*>(bias + wide);
  }
};

// Rows of codes, evenly spaced or, with `index`, picked.
struct CodeRows {
  const Code* base;
  ptrdiff_t stride;
  const int32_t* index = nullptr;
  const Code* operator[](int i) const { return base + stride * (index ? index[i] : i); }
};

// What becomes of scale * sum + bias: the epilogues of gemm.h, or GELU and then codes for the next layer.
struct ProductI8 {
  ProductI8(const LayerI8& layer, CodeRows a, int width, int depth)
      : a(a), layer(layer), width(width), steps(steps_of(depth)) {}

  CodeRows a;
  LayerI8 layer;
  int width, steps;
  Epilogue epilogue = Epilogue::kNone;
  Rows out, residual;
  const float* scale = nullptr;  // kAccumulate: out += scale[row] * value
  Code* codes = nullptr;         // if given, instead of `out`: rows of code_stride(width), to be closed
  Coding coding;                 // of `codes`
  uint8_t* levels = nullptr;     // if given, instead: the levels of ReLU6, and bytes from a row to the next
  ptrdiff_t levels_stride = 0;
};

// The finished values of sums in columns from `first` on.
struct Values {
  const float *scale, *bias;
  Values(const ProductI8& p, int first) : scale(p.layer.scale + first), bias(p.layer.bias + first) {}
  Vec operator()(const int32_t* sums, int at) const {
    IntVec sum;
    std::memcpy(&sum, sums + at, sizeof sum);
    return __builtin_convertvector(sum, Vec) * load(scale + at) + load(bias + at);
  }
};

// Finishes the sums of `rows` rows from `row` on in the columns of P panels. `open(i)` gives what takes row
// i's vectors: take(column, values, how many), the count being a constant but for the last vector of a narrow
// layer.
template <int P, class Open>
inline void each_row(const ProductI8& p, const int32_t* sums, int rows, int row, int panel,
                     const Open& open) {
  constexpr int kWide = P * kPanel;
  const int first = panel * kPanel, count = std::min(p.width - first, kWide);
  const Values value(p, first);
  if (count == kWide) {
    for (int i = 0; i < rows; ++i, sums += kWide) {
      const auto take = open(row + i);
#pragma GCC unroll 8
      for (int at = 0; at < kWide; at += kLanes)
        take(first + at, value(sums, at), std::integral_constant<int, kLanes>());
    }
    return;
  }
  for (int i = 0; i < rows; ++i, sums += kWide) {
    const auto take = open(row + i);
    for (int at = 0; at < count; at += kLanes)
      take(first + at, value(sums, at), std::min(kLanes, count - at));
  }
}

// The same for GELU and then the next layer's codes, four vectors side by side.
template <int P>
inline void each_code(const ProductI8& p, const int32_t* sums, int rows, int row, int panel) {
  constexpr int kWide = P * kPanel, V = kWide / kLanes, N = 4;
  const ptrdiff_t stride = code_stride(p.width);
  const int first = panel * kPanel, left = p.width - first;
  const Coding coding = p.coding;
  const Values value(p, first);
  Code* out = p.codes + row * stride + first;
  for (int at = 0; at < rows * V; at += N) {
    const int n = std::min(N, rows * V - at);
    Vec v[N];
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i)  // past the last row lies room that nobody reads
      v[i] = value(sums + (at + i) / V * kWide, (at + i) % V * kLanes);
    gelu_coarse(v);
    auto put = [&](int i, int some) {
      store_codes(out + (at + i) / V * stride + (at + i) % V * kLanes, coding(v[i]), some);
    };
    if (n == N && left >= kWide) {
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) put(i, kLanes);
    } else {
      for (int i = 0; i < n; ++i)
        if (const int rest = left - (at + i) % V * kLanes; rest > 0) put(i, std::min(kLanes, rest));
    }
  }
}

// The same as levels, which scale and bias are in; all panels are whole.
template <int P>
inline void each_level(const ProductI8& p, const int32_t* sums, int rows, int row, int panel) {
  const int first = panel * kPanel, panels = std::min(P, (p.width - first) / kPanel);
  const Values value(p, first);
  for (int i = row; i < row + rows; ++i, sums += P * kPanel) {
    uint8_t* out = p.levels + i * p.levels_stride + first;
    Vec values[P * kPanelVecs];
#pragma GCC unroll 4
    for (int k = 0; k < P * kPanelVecs; ++k) values[k] = value(sums, k * kLanes);
    if (P == 4 && panels == P) {
      store_four_levels(out, values);
    } else {
      for (int j = 0; j < panels; ++j) store_levels(out + j * kPanel, values + j * kPanelVecs);
    }
  }
}

inline Vec load_some(const float* p, int n) { return n == kLanes ? load(p) : load_part(p, n); }
inline void store_some(float* p, Vec v, int n) { n == kLanes ? store(p, v) : store_part(p, v, n); }

template <int P>
inline void finish(const ProductI8& p, const int32_t* sums, int rows, int row, int panel) {
  auto to = [&](int i) { return const_cast<float*>(p.out[i]); };
  auto all = [&](const auto& open) { each_row<P>(p, sums, rows, row, panel, open); };
  if (p.codes) return each_code<P>(p, sums, rows, row, panel);
  if (p.levels) return each_level<P>(p, sums, rows, row, panel);
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

// Rows [row0, row1) by P panels, which `weights` holds: sums of some tiles, then what becomes of them.
template <int P>
void strip(const ProductI8& p, int row0, int row1, int panel, const Weight* weights) {
  // Where a dot product takes whole bytes, sums are finished while they are near.
  constexpr int kRoom = kAsStored ? kDotRows : 24;
  alignas(64) int32_t sums[kRoom * P * kPanel + 3 * kLanes];
  const Code* a[kRoom];
  for (int row = row0; row < row1; row += kRoom) {
    const int rows = std::min(kRoom, row1 - row);
    for (int i = 0; i < rows; ++i) a[i] = p.a[row + i];
    for (int i = 0; i < rows; i += kDotRows)
      dot_tile_of<kDotRows, P>(std::min(kDotRows, rows - i), P, a + i, weights, p.layer.less + panel * kPanel,
                               p.steps, sums + i * P * kPanel);
    finish<P>(p, sums, rows, row, panel);
  }
}

template <int P = kDotGroup>
void strip_of(const ProductI8& p, int row0, int row1, int panel, int panels, const Weight* weights) {
  if constexpr (P > 1)
    if (panels < P) return strip_of<P - 1>(p, row0, row1, panel, panels, weights);
  strip<P>(p, row0, row1, panel, weights);
}

// Groups of stored panels as dot_tile reads them, in room that each thread has where they must be opened.
class OpenPanels {
 public:
  OpenPanels(int steps, int workers)
      : words_(Scratch::line(kDotGroup * panel_weights(steps) / kWordCodes)),
        scratch_(workers * words_),
        room_(reinterpret_cast<Weight*>(scratch_.array(workers * words_))) {}

  const Weight* get(const ProductI8& p, int panel, int count, int worker) {
    const int8_t* stored = p.layer.panels + static_cast<ptrdiff_t>(panel) * p.steps * kStep;
    return open_panels(stored, count, p.steps, room_ + worker * words_ * kWordCodes);
  }

 private:
  struct Nothing {
    explicit Nothing(size_t) {}
    float* array(size_t) { return nullptr; }
  };
  size_t words_;  // of a thread's room, 4 bytes each
  std::conditional_t<kAsStored, Nothing, Scratch> scratch_;
  Weight* room_;
};

// Rows [row0, row1) by panels [panel0, panel1).
inline void block(const ProductI8& p, int row0, int row1, int panel0, int panel1, OpenPanels& open,
                  int worker) {
  if (row0 == row1) return;
  for (int panel = panel0; panel < panel1; panel += kDotGroup) {
    const int panels = std::min(kDotGroup, panel1 - panel);
    strip_of(p, row0, row1, panel, panels, open.get(p, panel, panels, worker));
  }
}

// The whole product of `rows` rows; items run down the rows of a group of panels before the next.
inline void multiply(const ProductI8& p, int rows, int workers) {
  const int chunks = ceil_div(rows, kRowChunkI8), panels = panels_of(p.width);
  OpenPanels open(p.steps, workers);
  parallel_for(workers, chunks * ceil_div(panels, kDotGroup), [&](int item, int worker) {
    const int row = item % chunks * kRowChunkI8, panel = item / chunks * kDotGroup;
    block(p, row, std::min(rows, row + kRowChunkI8), panel, std::min(panels, panel + kDotGroup), open,
          worker);
  });
}

}  // namespace
}  // namespace edgemtl
