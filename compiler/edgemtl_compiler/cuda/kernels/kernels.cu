// The kernels of a CUDA program. What each computes is told in the headers; the host's part, which grid and
// which arguments, is edgemtl_compiler/cuda/ops.
//
// nvcc makes a cubin of this file for one architecture, one precision and one size of attention head; a C++
// compiler (emulated_driver.cc) makes the same for a CPU. EDGEMTL_F16 and EDGEMTL_BF16 multiply float16 and
// bfloat16 on tensor cores and sum in float32; without one all is float32, the reference. EDGEMTL_HEAD:
// values of an attention head.
#include "attention.h"
#include "conv_head.h"
#include "experts.h"
#include "head.h"
#include "linear.h"
#include "preprocess.h"

using namespace edgemtl;

#if defined(EDGEMTL_F16)
using T = Half;
#elif defined(EDGEMTL_BF16)
using T = Bfloat;
#else
using T = float;
#endif

#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)

KERNEL(kThreads)
patch_embed(const float* image, const T* w, const float* cls, const float* position, float* out, int rows,
            int dim, int height, int width, int patch) {
  EDGEMTL_SHARED(memory);
  const int tokens = height / patch * (width / patch) + 1;
  linear<T>(memory, plain_block<T>(memory, rows, rows, 0), Patches<T>{image, height, width, patch}, w,
            3 * patch * patch, dim, blockIdx.y * kCols, Embed{out, cls, position, tokens, dim});
}

KERNEL(kThreads)
norm_linear(const float* x, const float* affine, const T* w, T* out, int rows, int depth, int width,
            float eps) {
  EDGEMTL_SHARED(memory);
  linear<T>(memory, plain_block<T>(memory, rows, rows, 0), Normed<T>{x, affine, eps}, w, depth, width,
            blockIdx.y * kCols, Store<T, false>{out, width});
}

KERNEL(kThreads)
norm_linear_gelu(const float* x, const float* affine, const T* w, T* out, int rows, int depth, int width,
                 float eps) {
  EDGEMTL_SHARED(memory);
  linear<T>(memory, plain_block<T>(memory, rows, rows, 0), Normed<T>{x, affine, eps}, w, depth, width,
            blockIdx.y * kCols, Store<T, true>{out, width});
}

// Leaves out the class token, the first row of every patches + 1.
KERNEL(kThreads)
head_project(const float* x, const float* affine, const T* w, float* out, int rows, int depth, int width,
             int patches, float eps) {
  EDGEMTL_SHARED(memory);
  linear<T>(memory, plain_block<T>(memory, rows, patches, 1), Normed<T>{x, affine, eps}, w, depth, width,
            blockIdx.y * kCols, Store<float, true>{out, width});
}

KERNEL(kThreads)
linear_residual(const T* x, const T* w, const float* residual, float* out, int rows, int depth, int width) {
  EDGEMTL_SHARED(memory);
  linear<T>(memory, plain_block<T>(memory, rows, rows, 0), Rows<T>{x}, w, depth, width, blockIdx.y * kCols,
            Add{out, residual, width});
}

KERNEL(kAttentionWarps* kWarp)
attention(const T* qkv, T* out, int tokens, int heads) {
  EDGEMTL_SHARED(memory);
  attention<T, EDGEMTL_HEAD>(memory, qkv, out, tokens, heads);
}

KERNEL(kRouteTokens* kWarp)
route(const float* x, const float* affine, const float* gate, const int* path, T* normed, int* index,
      float* score, int rows, int dim, int held, int paths, int k, int renormalise, float eps) {
  EDGEMTL_SHARED(memory);
  route<T>(memory, x, affine, gate, path, normed, index, score, rows, dim, held, paths, k, renormalise, eps);
}

KERNEL(kDispatchThreads)
dispatch(const int* index, int* start, int* order, int pairs) {
  EDGEMTL_SHARED(memory);
  make_queue(memory, index, start, order, pairs);
}

// The first product of the experts: every queue's tokens, gathered.
KERNEL(kThreads)
expert_up(const T* tokens, const T* const* experts, const int* start, const int* order, T* hidden, int dim,
          int width, int count, int k) {
  EDGEMTL_SHARED(memory);
  const Block block = block_of<T>(memory);
  int e;
  if (!queue_block(block, start, order, count, k, false, &e)) return;
  linear<T>(memory, block, Rows<T>{tokens}, experts[e], dim, width, blockIdx.y * kCols,
            Store<T, true>{hidden, width});
}

// The second, times the score, to the place of the choice.
KERNEL(kThreads)
expert_down(const T* hidden, const T* const* experts, const int* start, const int* order, const float* score,
            float* parts, int dim, int width, int count, int k) {
  EDGEMTL_SHARED(memory);
  const Block block = block_of<T>(memory);
  int e;
  if (!queue_block(block, start, order, count, k, true, &e)) return;
  const T* w = experts[e] + static_cast<size_t>(ceil_div(width, kPanel)) * kPanel * (dim + 1);
  linear<T>(memory, block, Rows<T>{hidden}, w, width, dim, blockIdx.y * kCols, Scale{parts, score, dim});
}

KERNEL(kThreads)
combine(const float* parts, const int* index, const float* residual, float* out, int dim, int k) {
  sum_parts(parts, index, residual, out, dim, k);
}

KERNEL(kThreads)
separable_step(const float* x, const float* taps, const T* mix, float* out, int rows, int dim, int tiles_down,
               int tiles_across, int tile) {
  EDGEMTL_SHARED(memory);
  linear<T>(memory, plain_block<T>(memory, rows, rows, 0),
            Depthwise<T>{x, taps, {tiles_down, tiles_across, tile}}, mix, dim, dim, blockIdx.y * kCols,
            Add{out, x, dim});
}

KERNEL(kNormRows* kWarp)
normalise_patches(const float* x, const float* affine, T* out, int rows, int patches, int dim, float eps) {
  normalise<T>(x, affine, out, rows, patches, dim, eps);
}

KERNEL(kThreads)
conv_relu(const T* x, const T* w, float* out, int rows, int dim, int channels, int height, int width) {
  EDGEMTL_SHARED(memory);
  linear<T>(memory, plain_block<T>(memory, rows, rows, 0), Neighbours<T>{x, height, width, dim}, w, 9 * dim,
            channels, blockIdx.y * kCols, Relu{out, channels});
}

KERNEL(kThreads)
double_map(const float* x, T* out, int height, int width, int dim) {
  double_map<T>(x, out, height, width, dim);
}

KERNEL(kThreads)
to_map(const float* x, const T* w, float* out, int channels, int dim, int tiles_down, int tiles_across,
       int tile) {
  write_map<T>(x, w, out, channels, dim, Tiles{tiles_down, tiles_across, tile});
}

KERNEL(kThreads)
prepare(const uint8_t* frame, int64_t down, int64_t right, int64_t next, int frame_height, int frame_width,
        const int* rows, const int* columns, const float* levels, float* out, int height, int width, int top,
        int left, int high, int wide, int method, int fill) {
  prepare_pixel({frame, down, right, next}, Taps(rows, high, frame_height), Taps(columns, wide, frame_width),
                levels, out, height, width, top, left, high, wide, method, fill);
}
