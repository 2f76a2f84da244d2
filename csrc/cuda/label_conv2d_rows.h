// What the kernels of label_conv2d read: the input padded once, labels as class numbers with the run of equal ones that
// begins at each, dense channels beside them; and the sizes of a call as kernels use them.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "border.h"
#include "launch.h"
#include "scratch.h"
#include "torchp2p/label_conv2d.h"
#include "types.h"

namespace torchp2p {

struct LabelSizes {
  int n, h, w;
  int height, width;  // padded
  int out_h, out_w, classes, dense, out;
  int kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
  PadMode pad_mode;

  explicit LabelSizes(const LabelConv2dShape& s)
      : n(int(s.n)), h(int(s.h)), w(int(s.w)), height(int(s.h + 2 * s.pad_h)), width(int(s.w + 2 * s.pad_w)),
        out_h(int(s.out_h())), out_w(int(s.out_w())), classes(int(s.classes)), dense(int(s.dense_channels)),
        out(int(s.out_channels)), kernel_h(int(s.kernel_h)), kernel_w(int(s.kernel_w)), stride_h(int(s.stride_h)),
        stride_w(int(s.stride_w)), pad_h(int(s.pad_h)), pad_w(int(s.pad_w)), pad_mode(s.pad_mode) {}

  // Kernels count in int.
  static bool fit(const LabelConv2dShape& s) {
    if (!s.valid()) return false;
    const std::int64_t weights =
        (s.classes + s.dense_channels + 1) * (s.kernel_h * (s.kernel_w + 1)) * (s.out_channels + 64);
    const std::int64_t sizes[] = {s.n * (s.h + 2 * s.pad_h), s.n * s.out_h() * s.out_w(), weights, s.stride_h,
                                  s.stride_w};
    for (const std::int64_t size : sizes) {
      if (size > INT32_MAX) return false;
    }
    return true;
  }
};

// Rows of all samples, one after the other. A border of zeros and an id out of range are class number `classes`.
template <class A> struct LabelRows {
  int* classes;
  std::uint16_t* lengths;  // how many pixels from this one on have its class, as far as anybody looks
  A* dense;                // (N, D, height, width)

  LabelRows(ScratchMemory& scratch, const LabelSizes& s) {
    const std::int64_t pixels = std::int64_t{s.n} * s.height * s.width;
    classes = scratch.take<int>(pixels);
    lengths = scratch.take<std::uint16_t>(pixels);
    dense = scratch.take<A>(pixels * s.dense);
  }
};

constexpr int kRowThreads = 256;

// The label at a place, as an unsigned number: a negative one becomes huge.
inline __device__ std::uint64_t label_at(const void* labels, LabelType type, std::int64_t at) {
  switch (type) {
    case LabelType::kUInt8: return static_cast<const std::uint8_t*>(labels)[at];
    case LabelType::kInt8: return std::uint64_t(static_cast<const std::int8_t*>(labels)[at]);
    case LabelType::kUInt16: return static_cast<const std::uint16_t*>(labels)[at];
    case LabelType::kInt16: return std::uint64_t(static_cast<const std::int16_t*>(labels)[at]);
    case LabelType::kUInt32: return static_cast<const std::uint32_t*>(labels)[at];
    case LabelType::kInt32: return std::uint64_t(static_cast<const std::int32_t*>(labels)[at]);
    default: return static_cast<const std::uint64_t*>(labels)[at];
  }
}

// Computes: classes and lengths of a piece of a row; the least flat index of an id out of range, if it is wanted.
// Memory:   reads the labels, with the pixels that the next `reach` pixels of a piece overlap; writes 6 bytes a pixel.
// Parallel: a thread a pixel; a block's classes meet in shared memory (kRowThreads + reach of them).
template <class A>
static __global__ void __launch_bounds__(kRowThreads)
    label_rows_kernel(LabelSizes s, const void* labels, LabelType type, Strides stride, int reach, LabelRows<A> rows,
                      unsigned long long* bad_label) {
  TORCHP2P_DYNAMIC_SHARED(int, found);
  const int pieces = (s.width + kRowThreads - 1) / kRowThreads, row = blockIdx.x / pieces, n = row / s.height;
  const int begin = blockIdx.x % pieces * kRowThreads, y = shown_at(row % s.height, s.h, s.pad_h, s.pad_mode);
  for (int i = threadIdx.x; i < kRowThreads + reach; i += kRowThreads) {
    const int x = begin + i < s.width && y >= 0 ? shown_at(begin + i, s.w, s.pad_w, s.pad_mode) : -1;
    int found_class = s.classes;
    if (x >= 0) {
      const std::uint64_t id = label_at(labels, type, n * stride.n + y * stride.h + x * stride.w);
      if (id < std::uint64_t(s.classes)) {
        found_class = int(id);
      } else if (bad_label != nullptr) {
        atomicMin(bad_label, (static_cast<unsigned long long>(n) * s.h + y) * s.w + x);
      }
    }
    found[i] = begin + i < s.width ? found_class : -1;  // a run ends with its row
  }
  __syncthreads();
  const int x = begin + threadIdx.x, own = found[threadIdx.x];
  if (x >= s.width) return;
  int length = 1;
  while (length < reach && found[threadIdx.x + length] == own) ++length;
  const std::int64_t at = std::int64_t{row} * s.width + x;
  rows.classes[at] = own;
  rows.lengths[at] = std::uint16_t(length);
}

// Computes: the dense channels, padded. A thread a value, one pass over both.
template <class A>
static __global__ void __launch_bounds__(kRowThreads)
    dense_rows_kernel(LabelSizes s, const A* dense, Strides stride, A* padded) {
  const std::int64_t values = std::int64_t{s.n} * s.dense * s.height * s.width;
  for (std::int64_t i = blockIdx.x * std::int64_t{kRowThreads} + threadIdx.x; i < values;
       i += gridDim.x * std::int64_t{kRowThreads}) {
    const std::int64_t row = i / s.width, plane = row / s.height;
    const int x = shown_at(int(i - row * s.width), s.w, s.pad_w, s.pad_mode);
    const int y = shown_at(int(row - plane * s.height), s.h, s.pad_h, s.pad_mode);
    const std::int64_t n = plane / s.dense, channel = plane - n * s.dense;
    padded[i] = x < 0 || y < 0 ? A(0) : dense[n * stride.n + channel * stride.c + y * stride.h + x * stride.w];
  }
}

// Launches both. Runs are followed for `reach` pixels. `bad_label`: null, or the place for its number, which becomes -1
// where all ids are in range.
template <class A>
Status prepare_rows(const LabelConv2dShape& shape, const LabelConv2dInput& input, int reach, const LabelRows<A>& rows,
                    std::int64_t* bad_label, void* stream) {
  const LabelSizes s(shape);
  auto* const bad = reinterpret_cast<unsigned long long*>(bad_label);
  if (bad != nullptr) {
    const cudaError_t error = cudaMemsetAsync(bad, 0xff, sizeof *bad, static_cast<cudaStream_t>(stream));
    if (error != cudaSuccess) return cuda_failed("clearing the index of a bad label", error);
  }
  const unsigned pieces = unsigned((s.width + kRowThreads - 1) / kRowThreads);
  const Grid grid{pieces * unsigned(s.n * s.height), kRowThreads, sizeof(int) * std::size_t(kRowThreads + reach)};
  const Status status = launch("label_rows", label_rows_kernel<A>, grid, stream, s, input.labels, shape.label_type,
                               input.label_stride, reach, rows, bad);
  if (status != Status::kOk || s.dense == 0) return status;
  const std::int64_t values = std::int64_t{s.n} * s.dense * s.height * s.width;
  const std::int64_t blocks = (values + kRowThreads - 1) / kRowThreads, most = 1 << 20;
  return launch("dense_rows", dense_rows_kernel<A>, {unsigned(blocks < most ? blocks : most), kRowThreads}, stream, s,
                static_cast<const A*>(input.dense), input.dense_stride, rows.dense);
}

}  // namespace torchp2p
