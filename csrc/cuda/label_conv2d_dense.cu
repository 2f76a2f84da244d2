// The gradient of label_conv2d with respect to its dense channels, on CUDA.
//
// Computes: for every pixel of the padded image and dense channel the sum over taps and output channels of gradient
// times
//           weight; then adds the places of the border to the pixels that they repeat.
// Memory:   reads grad_y once (a tile's border twice), writes and reads the padded gradient, writes grad_dense.
// Parallel: a block takes a tile of the padded image and up to four dense channels; the gradients that it needs come
//           through shared memory, some output channels at a time. Then a thread a value.
#include "label_conv2d_rows.h"
#include "row.h"

namespace torchp2p {
namespace {

constexpr int kThreads = 256;
constexpr int kTileW = 32, kTileH = 16;
constexpr int kRowsOfThread = kTileW * kTileH / kThreads;
constexpr int kMostTaps = 32;     // in height and width, whose gradients are in shared memory at a time
constexpr int kMostChannels = 8;  // output channels there
constexpr std::size_t kShared = 48 * 1024;

inline __device__ int floor_mod(int a, int b) { return (a % b + b) % b; }
inline __device__ int floor_div(int a, int b) { return (a - floor_mod(a, b)) / b; }

struct Plan {
  int across, down;          // tiles of a padded image
  int rows, cols, channels;  // of the gradients in shared memory
  int dense_at_once, parts;  // dense channels of a block
  std::size_t shared;

  Plan(const LabelSizes& s, int value_bytes) {
    across = (s.width + kTileW - 1) / kTileW;
    down = (s.height + kTileH - 1) / kTileH;
    const int taps_h = s.kernel_h < kMostTaps ? s.kernel_h : kMostTaps;
    const int taps_w = s.kernel_w < kMostTaps ? s.kernel_w : kMostTaps;
    rows = (kTileH + taps_h - 2) / s.stride_h + 1;
    cols = (kTileW + taps_w - 2) / s.stride_w + 1;
    const int room = int(kShared / (std::size_t(rows) * cols * value_bytes));
    channels = room < kMostChannels ? room : kMostChannels;
    if (channels > s.out) channels = s.out;
    shared = std::size_t(channels) * rows * cols * value_bytes;
    dense_at_once = s.dense > 1 ? 4 : 1;
    parts = (s.dense + dense_at_once - 1) / dense_at_once;
  }
};

// The weights of the dense channels as [part][output channel][tap][channel of the part], zeros in those that only fill
// the last part.
template <class A>
__global__ void __launch_bounds__(kThreads)
    pack_weight_kernel(LabelSizes s, Plan plan, const A* weight, Strides stride, A* packed) {
  const int i = blockIdx.x * kThreads + threadIdx.x, taps = s.kernel_h * s.kernel_w;
  const int in_part = i % plan.dense_at_once, tap = i / plan.dense_at_once % taps;
  const int o = i / plan.dense_at_once / taps % s.out, part = i / plan.dense_at_once / taps / s.out;
  if (part >= plan.parts) return;
  const int d = part * plan.dense_at_once + in_part, ky = tap / s.kernel_w, kx = tap % s.kernel_w;
  const std::int64_t at = o * stride.n + (s.classes + d) * stride.c + ky * stride.h + kx * stride.w;
  packed[i] = d < s.dense ? weight[at] : A(0);
}

// Some taps, and the gradients that they take to a tile: those of the output rows [top, top + rows) and the columns
// [left, left + cols).
struct Taps {
  int ky, ky_end, kx, kx_end, top, left;

  __device__ Taps(const LabelSizes& s, int first_ky, int first_kx, int tile_y, int tile_x)
      : ky(first_ky), ky_end(min(first_ky + kMostTaps, s.kernel_h)), kx(first_kx),
        kx_end(min(first_kx + kMostTaps, s.kernel_w)),
        top(floor_div(tile_y - ky_end + s.stride_h, s.stride_h)),  // rounded up: (tile_y - (ky_end - 1)) / stride
        left(floor_div(tile_x - kx_end + s.stride_w, s.stride_w)) {}
};

template <class T>
__device__ void load_gradients(const LabelSizes& s, const Plan& plan, const T* sample, const Strides& stride,
                               const Taps& taps, int o, Accumulator<T>* tile) {
  const int pixels = plan.rows * plan.cols;
  const bool channels_first = stride.c >= stride.w;  // then pixels lie side by side, else channels
  for (int i = threadIdx.x; i < plan.channels * pixels; i += kThreads) {
    const int channel = channels_first ? i / pixels : i % plan.channels;
    const int pixel = channels_first ? i % pixels : i / plan.channels;
    const int y = taps.top + pixel / plan.cols, x = taps.left + pixel % plan.cols;
    const bool there = y >= 0 && y < s.out_h && x >= 0 && x < s.out_w && o + channel < s.out;
    tile[channel * pixels + pixel] =
        there ? to_accumulator(sample[(o + channel) * stride.c + y * stride.h + x * stride.w]) : Accumulator<T>(0);
  }
}

// What a padded pixel (i, j) gets through some taps from some output channels, whose gradients are in the tile.
template <int kDense, class A>
__device__ void add_taps(const LabelSizes& s, const Plan& plan, const Taps& taps, int i, int j, int channels,
                         const A* tile, const A* weight, A (&sum)[kDense]) {
  const int first_ky = taps.ky + floor_mod(i - taps.ky, s.stride_h);  // those that meet the pixel
  const int first_kx = taps.kx + floor_mod(j - taps.kx, s.stride_w);
  const int y = floor_div(i - first_ky, s.stride_h) - taps.top, x = floor_div(j - first_kx, s.stride_w) - taps.left;
  for (int c = 0; c < channels; ++c, tile += plan.rows * plan.cols, weight += s.kernel_h * s.kernel_w * kDense) {
    const A* row = tile + y * plan.cols + x;
    for (int ky = first_ky; ky < taps.ky_end; ky += s.stride_h, row -= plan.cols) {
      const A* grad = row;
#pragma unroll 4
      for (int kx = first_kx; kx < taps.kx_end; kx += s.stride_w, --grad) {
        const Row<A, kDense> factors = load_row<A, kDense>(weight + (ky * s.kernel_w + kx) * kDense);
#pragma unroll
        for (int d = 0; d < kDense; ++d) sum[d] += *grad * factors.values[d];
      }
    }
  }
}

template <int kDense, class T>
__global__ void __launch_bounds__(kThreads, 3)
    padded_gradient_kernel(LabelSizes s, Plan plan, const T* grad_y, Strides stride, const Accumulator<T>* weight,
                           Accumulator<T>* padded) {
  using A = Accumulator<T>;
  TORCHP2P_DYNAMIC_SHARED(A, tile);
  const int tiles = plan.across * plan.down, n = blockIdx.x / tiles, part = blockIdx.y;
  const int tile_y = blockIdx.x % tiles / plan.across * kTileH, tile_x = blockIdx.x % plan.across * kTileW;
  const int j = tile_x + threadIdx.x % kTileW, first_i = tile_y + threadIdx.x / kTileW * kRowsOfThread;
  A sums[kRowsOfThread][kDense] = {};
  for (int o = 0; o < s.out; o += plan.channels) {
    for (int ky = 0; ky < s.kernel_h; ky += kMostTaps) {
      for (int kx = 0; kx < s.kernel_w; kx += kMostTaps) {
        const Taps taps(s, ky, kx, tile_y, tile_x);
        __syncthreads();  // the gradients before have been read
        load_gradients(s, plan, grad_y + n * stride.n, stride, taps, o, tile);
        __syncthreads();
        const A* const vectors = weight + (std::int64_t{part} * s.out + o) * s.kernel_h * s.kernel_w * kDense;
        const int channels = min(plan.channels, s.out - o);
#pragma unroll
        for (int r = 0; r < kRowsOfThread; ++r) {
          add_taps(s, plan, taps, first_i + r, j, channels, tile, vectors, sums[r]);
        }
      }
    }
  }
  for (int r = 0; r < kRowsOfThread && first_i + r < s.height && j < s.width; ++r) {
#pragma unroll
    for (int d = 0; d < kDense; ++d) {
      const int channel = part * kDense + d;
      if (channel >= s.dense) continue;
      const std::int64_t row = (std::int64_t{n} * s.dense + channel) * s.height + first_i + r;
      padded[row * s.width + j] = sums[r][d];
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    fold_kernel(LabelSizes s, const Accumulator<T>* padded, T* grad_dense, bool channels_last) {
  const std::int64_t at = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  if (at >= std::int64_t{s.n} * s.dense * s.h * s.w) return;
  const std::int64_t pixel = channels_last ? at / s.dense : at;
  const int x = int(pixel % s.w), y = int(pixel / s.w % s.h);
  const std::int64_t image = pixel / s.w / s.h;
  const std::int64_t plane = channels_last ? image * s.dense + at % s.dense : image;
  Accumulator<T> sum = 0;
  for_each_place(y, s.h, s.pad_h, s.pad_mode, [&](int padded_y) {
    const Accumulator<T>* const row = padded + (plane * s.height + padded_y) * s.width;
    for_each_place(x, s.w, s.pad_w, s.pad_mode, [&](int padded_x) { sum += row[padded_x]; });
  });
  grad_dense[at] = from_accumulator<T>(sum);
}

template <class A> struct Memory {
  A *weight, *padded;

  Memory(ScratchMemory& scratch, const LabelSizes& s, const Plan& plan)
      : weight(scratch.take<A>(weights(s, plan))),
        padded(scratch.take<A>(std::int64_t{s.n} * s.dense * s.height * s.width)) {}

  static std::int64_t weights(const LabelSizes& s, const Plan& plan) {
    return std::int64_t{plan.parts} * plan.dense_at_once * s.out * s.kernel_h * s.kernel_w;
  }
};

unsigned blocks_for(std::int64_t threads) { return unsigned((threads + kThreads - 1) / kThreads); }

template <class T> Status gradient(const LabelConv2dDenseGradient& params, void* stream) {
  using A = Accumulator<T>;
  const LabelSizes s(params.shape);
  const Plan plan(s, sizeof(A));
  ScratchMemory scratch(params.scratch);
  const Memory<A> memory(scratch, s, plan);
  Status status =
      launch("label_conv2d_pack_weight", pack_weight_kernel<A>, {blocks_for(Memory<A>::weights(s, plan)), kThreads},
             stream, s, plan, static_cast<const A*>(params.weight), params.weight_stride, memory.weight);
  if (status != Status::kOk) return status;
  auto* const kernel = plan.dense_at_once == 1 ? padded_gradient_kernel<1, T> : padded_gradient_kernel<4, T>;
  const dim3 blocks(unsigned(s.n * plan.across * plan.down), unsigned(plan.parts));
  status = launch("label_conv2d_padded_gradient", kernel, {blocks, kThreads, plan.shared}, stream, s, plan,
                  static_cast<const T*>(params.grad_y), params.grad_y_stride, static_cast<const A*>(memory.weight),
                  memory.padded);
  if (status != Status::kOk) return status;
  const std::int64_t values = std::int64_t{s.n} * s.dense * s.h * s.w;
  return launch("label_conv2d_fold", fold_kernel<T>, {blocks_for(values), kThreads}, stream, s,
                static_cast<const A*>(memory.padded), static_cast<T*>(params.grad_dense), params.channels_last);
}

}  // namespace

std::int64_t label_conv2d_dense_gradient_scratch_cuda(const LabelConv2dShape& shape) {
  ScratchMemory scratch(nullptr);
  with_type(shape.dtype, [&](auto type) {
    using A = Accumulator<typename decltype(type)::type>;
    const LabelSizes s(shape);
    Memory<A>(scratch, s, Plan(s, sizeof(A)));
    return Status::kOk;
  });
  return scratch.bytes();
}

Status label_conv2d_dense_gradient_cuda(const LabelConv2dDenseGradient& params, int device, void* stream) {
  if (!LabelSizes::fit(params.shape) || params.shape.dense_channels == 0) return Status::kBadArgument;
  return on_device(device, [&] {
    return with_type(params.shape.dtype,
                     [&](auto type) { return gradient<typename decltype(type)::type>(params, stream); });
  });
}

}  // namespace torchp2p
