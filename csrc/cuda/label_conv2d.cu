// label_conv2d on CUDA, forward. (Gradients: label_conv2d_backward.cu, label_conv2d_dense.cu.)
//
// Computes: y[n, :, y, x] = bias + sum over the taps of the weight vector of the label below each + dense channels. A
//           kernel row that sees one label takes one vector, the sum over the row's taps, made once per call; a pixel
//           whose rows all continue the runs of its left neighbour's takes that one's sum over.
// Memory:   reads labels and dense channels, writes them padded (6 bytes a pixel and a value a dense one), reads those
// and
//           writes y. Tables of weight vectors, kh (kw + 1) (L + D) O values, come from the caches.
// Parallel: a block takes a tile of pixels of an output row and of output channels; a thread kWalk pixels side by side
//           and 16 bytes of output channels, with all their sums in registers. NCHW is turned over in shared memory.
#include "label_conv2d_rows.h"
#include "row.h"
#include "vec.h"

namespace torchp2p {
namespace {

constexpr int kThreads = 256;
constexpr int kWalk = 4;         // pixels of a thread
constexpr int kMostGroups = 16;  // of channels in a block
constexpr int kReach = 4096;     // pixels that a run is followed at most

// Weight vectors: of kernel row ky, input channel c and kernel column k at ((ky * cells + c) * (kw + 1) + k) *
// channels; k = kw has the sum over the row. Channels are padded with zeros to whole packs.
template <class A> struct WeightTable {
  A* values;
  int cells, columns, channels;

  template <int kCount> __device__ Row<A, kCount> at(int ky, int cell, int k, int o) const {
    return load_row<A, kCount>(values + (std::int64_t{ky * cells + cell} * columns + k) * channels + o);
  }
};

struct Tiles {
  int groups;         // of channels in a block, a power of two
  int pixels, tiles;  // of a tile, and how many of those in a row
  bool channels_last, wide;

  __host__ __device__ int walkers() const { return kThreads / groups; }
};

template <class A>
__global__ void __launch_bounds__(kThreads)
    weight_table_kernel(LabelSizes s, const A* weight, Strides stride, WeightTable<A> table) {
  const int i = blockIdx.x * kThreads + threadIdx.x, o = i % table.channels, entry = i / table.channels;
  if (entry >= s.kernel_h * table.cells) return;
  const int ky = entry / table.cells, cell = entry % table.cells;
  A* const to = table.values + std::int64_t{entry} * table.columns * table.channels + o;
  A sum = 0;
  for (int kx = 0; kx < s.kernel_w; ++kx) {
    const A value = o < s.out ? weight[o * stride.n + cell * stride.c + ky * stride.h + kx * stride.w] : A(0);
    to[std::int64_t{kx} * table.channels] = value;
    sum += value;
  }
  to[std::int64_t{s.kernel_w} * table.channels] = sum;
}

// What a thread computes: kWalk pixels, of kCount output channels each.
template <class A, int kCount> struct Sums {
  A values[kWalk][kCount];

  __device__ Sums() {
#pragma unroll
    for (auto& pixel : values)
#pragma unroll
      for (A& value : pixel) value = 0;
  }

  // One tap of one dense channel.
  __device__ void add_products(const Row<A, kCount>& weight, const A* row, const int (&columns)[kWalk]) {
#pragma unroll
    for (int p = 0; p < kWalk; ++p) {
      const A value = row[columns[p]];
#pragma unroll
      for (int v = 0; v < kCount; ++v) values[p][v] += weight.values[v] * value;
    }
  }
};

template <class A, int kCount> __device__ void add_row(A (&sum)[kCount], const Row<A, kCount>& row) {
#pragma unroll
  for (int v = 0; v < kCount; ++v) sum[v] += row.values[v];
}

// The sum of the weight vectors below a window; `at` is its corner.
template <class A, int kCount>
__device__ void gather(const LabelSizes& s, const LabelRows<A>& rows, const WeightTable<A>& table, std::int64_t at,
                       int o, A (&sum)[kCount]) {
#pragma unroll
  for (A& value : sum) value = 0;
#pragma unroll 2
  for (int ky = 0; ky < s.kernel_h; ++ky, at += s.width) {
    const int first = rows.classes[at];
    if (rows.lengths[at] >= s.kernel_w) {
      if (first < s.classes) add_row(sum, table.template at<kCount>(ky, first, s.kernel_w, o));
      continue;
    }
    for (int kx = 0; kx < s.kernel_w; ++kx) {
      const int label = rows.classes[at + kx];
      if (label < s.classes) add_row(sum, table.template at<kCount>(ky, label, kx, o));
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    label_conv2d_kernel(LabelSizes s, LabelRows<Accumulator<T>> rows, WeightTable<Accumulator<T>> table,
                        const Accumulator<T>* bias, T* y, Tiles tiles) {
  using A = Accumulator<T>;
  constexpr int kCount = kPack<T>;
  TORCHP2P_SHARED(bool, changes, kThreads* kWalk);  // of each pixel of the tile: its sum is not its left neighbour's
  TORCHP2P_SHARED(uint4, turned, kThreads * kWalk + kMostGroups * kCount);
  const int row = blockIdx.x / tiles.tiles, n = row / s.out_h, out_y = row % s.out_h;
  const int begin = blockIdx.x % tiles.tiles * tiles.pixels, left = s.out_w - begin;
  const int group = threadIdx.x % tiles.groups, walker = threadIdx.x / tiles.groups;
  const int o = (blockIdx.y * tiles.groups + group) * kCount, first = walker * kWalk;
  const std::int64_t top = (std::int64_t{n} * s.height + out_y * s.stride_h) * s.width;  // of the windows

  for (int i = threadIdx.x; i < tiles.pixels && i < left; i += kThreads) {
    bool change = i % kWalk == 0;
    if (!change) {
      std::int64_t at = top + (begin + i - 1) * s.stride_w;
      for (int ky = 0; ky < s.kernel_h; ++ky, at += s.width) change |= rows.lengths[at] < s.kernel_w + s.stride_w;
    }
    changes[i] = change;
  }
  __syncthreads();

  Sums<A, kCount> sums;
  if (first < left && o < table.channels) {
    int columns[kWalk];  // pixels beyond the end of the row compute what the last one does
#pragma unroll
    for (int p = 0; p < kWalk; ++p) columns[p] = (first + p < left ? begin + first + p : s.out_w - 1) * s.stride_w;
    A sum[kCount];
#pragma unroll
    for (int p = 0; p < kWalk; ++p) {
      if (p == 0 || (first + p < left && changes[first + p])) gather(s, rows, table, top + columns[p], o, sum);
#pragma unroll
      for (int v = 0; v < kCount; ++v) sums.values[p][v] = sum[v];
    }
    for (int d = 0; d < s.dense; ++d) {
      const A* dense = rows.dense + ((std::int64_t{n} * s.dense + d) * s.height + out_y * s.stride_h) * s.width;
      for (int ky = 0; ky < s.kernel_h; ++ky, dense += s.width) {
#pragma unroll 2
        for (int kx = 0; kx < s.kernel_w; ++kx) {
          sums.add_products(table.template at<kCount>(ky, s.classes + d, kx, o), dense + kx, columns);
        }
      }
    }
    // The bias comes last: as large as the result, it would round off what is added to it.
#pragma unroll
    for (int v = 0; v < kCount; ++v) {
      const A value = bias != nullptr && o + v < s.out ? bias[o + v] : A(0);
#pragma unroll
      for (int p = 0; p < kWalk; ++p) sums.values[p][v] += value;
    }
  }

  if (tiles.channels_last) {
#pragma unroll
    for (int p = 0; p < kWalk; ++p) {
      if (first + p >= left || o >= s.out) continue;
      Pack<T> pack;
#pragma unroll
      for (int v = 0; v < kCount; ++v) pack.values[v] = from_accumulator<T>(sums.values[p][v]);
      T* const to = y + (std::int64_t{row} * s.out_w + begin + first + p) * s.out + o;
      if (tiles.wide) {
        store_pack(to, pack);
      } else {
        store_tail(to, pack, s.out - o);
      }
    }
    return;
  }
  // [channel of the block][pixel of the tile], a pack longer than a tile so that channels lie in different banks.
  T* const tile = reinterpret_cast<T*>(turned);
  const int pitch = tiles.pixels + kCount, packs = tiles.pixels / kCount;
#pragma unroll
  for (int v = 0; v < kCount; ++v)
#pragma unroll
    for (int p = 0; p < kWalk; ++p) {
      tile[(group * kCount + v) * pitch + first + p] = from_accumulator<T>(sums.values[p][v]);
    }
  __syncthreads();
  for (int i = threadIdx.x; i < tiles.groups * kCount * packs; i += kThreads) {
    const int channel = i / packs, pixel = i % packs * kCount, to_o = blockIdx.y * tiles.groups * kCount + channel;
    if (pixel >= left || to_o >= s.out) continue;
    T* const to = y + ((std::int64_t{n} * s.out + to_o) * s.out_h + out_y) * s.out_w + begin + pixel;
    const Pack<T> pack = load_pack(tile + channel * pitch + pixel);
    if (tiles.wide) {
      store_pack(to, pack);
    } else {
      store_tail(to, pack, left - pixel);
    }
  }
}

template <class T> struct Memory {
  using A = Accumulator<T>;
  LabelRows<A> rows;
  WeightTable<A> table;

  Memory(ScratchMemory& scratch, const LabelSizes& s) : rows(scratch, s) {
    table.cells = s.classes + s.dense;
    table.columns = s.kernel_w + 1;
    table.channels = (s.out + kPack<T> - 1) / kPack<T> * kPack<T>;
    table.values = scratch.take<A>(std::int64_t{s.kernel_h} * table.cells * table.columns * table.channels);
  }
};

template <class T> Tiles tiles_of(const LabelSizes& s, const void* y, bool channels_last) {
  Tiles tiles;
  tiles.groups = 1;
  while (tiles.groups < kMostGroups && tiles.groups * kPack<T> < s.out) tiles.groups *= 2;
  tiles.pixels = tiles.walkers() * kWalk;
  tiles.tiles = (s.out_w + tiles.pixels - 1) / tiles.pixels;
  tiles.channels_last = channels_last;
  tiles.wide = takes_packs(static_cast<const T*>(y)) && (channels_last ? s.out : s.out_w) % kPack<T> == 0;
  return tiles;
}

template <class T> Status forward(const LabelConv2dForward& params, void* stream) {
  using A = Accumulator<T>;
  const LabelSizes s(params.shape);
  ScratchMemory scratch(params.scratch);
  const Memory<T> memory(scratch, s);
  const int window = s.kernel_w + s.stride_w;  // longer runs are told from longer ones by nobody
  std::int64_t* const bad_label = params.ignore_out_of_range ? nullptr : params.bad_label;
  Status status =
      prepare_rows(params.shape, params.input, window < kReach ? window : kReach, memory.rows, bad_label, stream);
  if (status != Status::kOk) return status;
  const int entries = s.kernel_h * memory.table.cells * memory.table.channels;
  status =
      launch("label_conv2d_weights", weight_table_kernel<A>, {unsigned((entries + kThreads - 1) / kThreads), kThreads},
             stream, s, static_cast<const A*>(params.weight), params.weight_stride, memory.table);
  if (status != Status::kOk) return status;
  const Tiles tiles = tiles_of<T>(s, params.y, params.channels_last);
  const int block_channels = tiles.groups * kPack<T>;
  const dim3 blocks(unsigned(s.n * s.out_h * tiles.tiles), unsigned((s.out + block_channels - 1) / block_channels));
  return launch("label_conv2d_forward", label_conv2d_kernel<T>, {blocks, kThreads}, stream, s, memory.rows,
                memory.table, static_cast<const A*>(params.bias), static_cast<T*>(params.y), tiles);
}

}  // namespace

std::int64_t label_conv2d_forward_scratch_cuda(const LabelConv2dShape& shape) {
  ScratchMemory scratch(nullptr);
  with_type(shape.dtype, [&](auto type) {
    Memory<typename decltype(type)::type>(scratch, LabelSizes(shape));
    return Status::kOk;
  });
  return scratch.bytes();
}

Status label_conv2d_forward_cuda(const LabelConv2dForward& params, int device, void* stream) {
  if (!LabelSizes::fit(params.shape)) return Status::kBadArgument;
  return on_device(device, [&] {
    return with_type(params.shape.dtype,
                     [&](auto type) { return forward<typename decltype(type)::type>(params, stream); });
  });
}

}  // namespace torchp2p
