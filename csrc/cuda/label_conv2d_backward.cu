// The gradients of label_conv2d with respect to its weight and bias, on CUDA.
//
// Computes: for every kernel tap and label the sum of the gradients of the pixels that see the label there; for every
// tap
//           and dense channel the sum of gradient times value; for the bias the sum of all gradients.
// Memory:   reads labels and dense channels, writes them padded; reads those and grad_y once a kernel row (from L2, for
//           blocks of different kernel rows take the same pixels at the same time). Sums of a band: kh kw (L + D + 1)
//           O.
// Parallel: a block takes a kernel row, 32 output channels, some input channels and a band of output rows: a lane an
//           output channel, a warp a kernel column, whose sums nobody else adds to. Tiles of grad_y go through shared
//           memory; along a row a warp adds up one run of equal labels after the other. Then the bands are added in
//           their order in double.
#include "label_conv2d_rows.h"
#include "reduce.h"

namespace torchp2p {
namespace {

constexpr int kTile = 64;          // pixels of grad_y in shared memory
constexpr int kPitch = kWarp + 1;  // channels of a pixel there: pixels side by side lie in different banks
constexpr int kMostColumns = 8;    // kernel columns of a block
constexpr int kReach = kTile;      // pixels that a run is followed at most
constexpr int kMostBands = 64, kLeastRows = 8;
constexpr std::int64_t kMostBytes = std::int64_t{1} << 26;  // of the sums of all bands
constexpr std::size_t kShared = 48 * 1024;
constexpr int kReduceThreads = 256;

// Cells are the input channels and, after them, a channel of ones for the bias.
struct Plan {
  int cells, channels;  // channels: whole warps of them
  int taps, columns, cells_at_once, column_parts, cell_parts, channel_parts, bands;
  std::size_t shared;

  Plan(const LabelSizes& s, int value_bytes) {
    cells = s.classes + s.dense + 1;
    taps = s.kernel_h * s.kernel_w;
    channel_parts = (s.out + kWarp - 1) / kWarp;
    channels = channel_parts * kWarp;
    columns = s.kernel_w < kMostColumns ? s.kernel_w : kMostColumns;
    column_parts = (s.kernel_w + columns - 1) / columns;
    const std::size_t tile = std::size_t(kTile) * kPitch * value_bytes,
                      cell = std::size_t(columns) * kWarp * value_bytes;
    const int room = int((kShared - tile) / cell);
    cells_at_once = cells < room ? cells : room;
    cell_parts = (cells + cells_at_once - 1) / cells_at_once;
    shared = tile + cells_at_once * cell;
    // Cut by the shape alone: the same sums on every device.
    const std::int64_t bytes = table() * taps * value_bytes, rows = std::int64_t{s.n} * s.out_h;
    std::int64_t some = rows / kLeastRows < kMostBands ? rows / kLeastRows : kMostBands;
    if (some * bytes > kMostBytes) some = kMostBytes / bytes;
    bands = some < 1 ? 1 : int(some);
  }

  __host__ __device__ std::int64_t table() const { return std::int64_t{cells} * channels; }  // sums of a tap
};

template <class T> struct Gradient {
  const T* values;
  Strides stride;
};

// The tile of grad_y that begins at pixel x, as [pixel][channel]; zeros where there is nothing.
template <class T>
__device__ void load_tile(const LabelSizes& s, const Gradient<T>& grad, int n, int y, int x, int o, int count,
                          Accumulator<T>* tile) {
  const T* const row = grad.values + n * grad.stride.n + y * grad.stride.h + x * grad.stride.w + o * grad.stride.c;
  const bool channels_first = grad.stride.c >= grad.stride.w;  // then pixels lie side by side, else channels
  for (int i = threadIdx.x; i < kTile * kWarp; i += blockDim.x) {
    const int pixel = channels_first ? i % kTile : i / kWarp, channel = channels_first ? i / kTile : i % kWarp;
    const bool there = pixel < count && o + channel < s.out;
    tile[pixel * kPitch + channel] =
        there ? to_accumulator(row[pixel * grad.stride.w + channel * grad.stride.c]) : Accumulator<T>(0);
  }
}

// What a warp adds up: one kernel column of some cells, in shared memory; and where in the tile it does.
template <class A> struct Column {
  A* sums;  // of the lane's channel, for the first cell; those of the next are `step` values on
  int step, first_cell, end_cell;

  __device__ bool has(int cell) const { return cell >= first_cell && cell < end_cell; }
  __device__ void add(int cell, A value) const { sums[(cell - first_cell) * step] += value; }
};

// Gradients of `count` pixels, run after run of equal labels; `labels` and `lengths` begin below the first of them.
template <class A>
__device__ void add_labels(const LabelSizes& s, const int* labels, const std::uint16_t* lengths, const A* grads,
                           int count, const Column<A>& column) {
  for (int x = 0; x < count;) {
    const int label = labels[x * s.stride_w], run = (lengths[x * s.stride_w] + s.stride_w - 1) / s.stride_w;
    const int end = x + run < count ? x + run : count;
    if (label == s.classes || !column.has(label)) {
      x = end;
      continue;
    }
    A sum = 0;
#pragma unroll 4
    for (; x < end; ++x) sum += grads[x * kPitch];
    column.add(label, sum);
  }
}

template <class T>
__global__ void __launch_bounds__(kMostColumns* kWarp, 4)
    label_conv2d_backward_kernel(LabelSizes s, LabelRows<Accumulator<T>> rows, Gradient<T> grad, Plan plan,
                                 Accumulator<T>* sums) {
  using A = Accumulator<T>;
  TORCHP2P_DYNAMIC_SHARED(A, tile);
  A* const table = tile + kTile * kPitch;  // [cell][kernel column][channel]
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, band = blockIdx.x;
  const int ky = blockIdx.y / plan.column_parts, kx = blockIdx.y % plan.column_parts * plan.columns + warp;
  const int o = blockIdx.z / plan.cell_parts * kWarp, first_cell = blockIdx.z % plan.cell_parts * plan.cells_at_once;
  const int cells = first_cell + plan.cells_at_once < plan.cells ? plan.cells_at_once : plan.cells - first_cell;
  const Column<A> column{table + warp * kWarp + lane, plan.columns * kWarp, first_cell, first_cell + cells};
  for (int cell = 0; cell < cells; ++cell) column.sums[cell * column.step] = 0;

  const std::int64_t out_rows = std::int64_t{s.n} * s.out_h;
  for (int row = int(out_rows * band / plan.bands); row < out_rows * (band + 1) / plan.bands; ++row) {
    const int n = row / s.out_h, y = row % s.out_h;
    for (int x = 0; x < s.out_w; x += kTile) {
      const int count = s.out_w - x < kTile ? s.out_w - x : kTile;
      __syncthreads();  // the tile before has been read
      load_tile(s, grad, n, y, x, o, count, tile);
      __syncthreads();
      if (kx >= s.kernel_w) continue;
      const int top = y * s.stride_h + ky, start = x * s.stride_w + kx;
      const std::int64_t at = (std::int64_t{n} * s.height + top) * s.width + start;
      add_labels(s, rows.classes + at, rows.lengths + at, tile + lane, count, column);
      for (int d = 0; d < s.dense; ++d) {
        if (!column.has(s.classes + d)) continue;
        const A* const values = rows.dense + ((std::int64_t{n} * s.dense + d) * s.height + top) * s.width + start;
        A sum = 0;
#pragma unroll 4
        for (int i = 0; i < count; ++i) sum += tile[i * kPitch + lane] * values[i * s.stride_w];
        column.add(s.classes + d, sum);
      }
      if (ky == 0 && kx == 0 && column.has(plan.cells - 1)) {
        A sum = 0;
        for (int i = 0; i < count; ++i) sum += tile[i * kPitch + lane];
        column.add(plan.cells - 1, sum);
      }
    }
  }
  if (kx >= s.kernel_w) return;
  A* const out = sums + ((std::int64_t{band} * s.kernel_h + ky) * s.kernel_w + kx) * plan.table();
  for (int cell = 0; cell < cells; ++cell) {
    out[std::int64_t{first_cell + cell} * plan.channels + o + lane] = column.sums[cell * column.step];
  }
}

// A thread a sum: over all bands, in their order.
template <class A>
__global__ void __launch_bounds__(kReduceThreads)
    add_bands_kernel(LabelSizes s, Plan plan, const A* sums, A* grad_weight, Strides stride, A* grad_bias) {
  const std::int64_t i = blockIdx.x * std::int64_t{kReduceThreads} + threadIdx.x, all = plan.table() * plan.taps;
  if (i >= all) return;
  const int o = int(i % plan.channels), cell = int(i / plan.channels % plan.cells), tap = int(i / plan.table());
  const bool bias = cell == plan.cells - 1;
  if (o >= s.out || (bias && (tap != 0 || grad_bias == nullptr))) return;
  double total = 0;
  for (int band = 0; band < plan.bands; ++band) total += double(sums[band * all + i]);
  if (bias) {
    grad_bias[o] = A(total);
  } else {
    const int ky = tap / s.kernel_w, kx = tap % s.kernel_w;
    grad_weight[o * stride.n + cell * stride.c + ky * stride.h + kx * stride.w] = A(total);
  }
}

template <class T> struct Memory {
  using A = Accumulator<T>;
  LabelRows<A> rows;
  A* sums;

  Memory(ScratchMemory& scratch, const LabelSizes& s, const Plan& plan)
      : rows(scratch, s), sums(scratch.take<A>(plan.table() * plan.taps * plan.bands)) {}
};

template <class T> Status backward(const LabelConv2dBackward& params, void* stream) {
  using A = Accumulator<T>;
  const LabelSizes s(params.shape);
  const Plan plan(s, sizeof(A));
  ScratchMemory scratch(params.scratch);
  const Memory<T> memory(scratch, s, plan);
  Status status = prepare_rows(params.shape, params.input, kReach, memory.rows, nullptr, stream);
  if (status != Status::kOk) return status;
  const Gradient<T> grad{static_cast<const T*>(params.grad_y), params.grad_y_stride};
  const dim3 blocks(unsigned(plan.bands), unsigned(s.kernel_h * plan.column_parts),
                    unsigned(plan.channel_parts * plan.cell_parts));
  const Grid grid{blocks, unsigned(plan.columns * kWarp), plan.shared};
  status = launch("label_conv2d_backward", label_conv2d_backward_kernel<T>, grid, stream, s, memory.rows, grad, plan,
                  memory.sums);
  if (status != Status::kOk) return status;
  const unsigned reduce = unsigned((plan.table() * plan.taps + kReduceThreads - 1) / kReduceThreads);
  return launch("label_conv2d_add_bands", add_bands_kernel<A>, {reduce, kReduceThreads}, stream, s, plan, memory.sums,
                static_cast<A*>(params.grad_weight), params.grad_weight_stride, static_cast<A*>(params.grad_bias));
}

}  // namespace

std::int64_t label_conv2d_backward_scratch_cuda(const LabelConv2dShape& shape) {
  ScratchMemory scratch(nullptr);
  with_type(shape.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const LabelSizes s(shape);
    Memory<T>(scratch, s, Plan(s, sizeof(Accumulator<T>)));
    return Status::kOk;
  });
  return scratch.bytes();
}

Status label_conv2d_backward_cuda(const LabelConv2dBackward& params, int device, void* stream) {
  if (!LabelSizes::fit(params.shape)) return Status::kBadArgument;
  return on_device(device, [&] {
    return with_type(params.shape.dtype,
                     [&](auto type) { return backward<typename decltype(type)::type>(params, stream); });
  });
}

}  // namespace torchp2p
