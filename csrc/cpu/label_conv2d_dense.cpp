// The gradient of label_conv2d with respect to its dense channels, on the CPU.
//
// Computes: grad_dense[d][y * stride + ky][x * stride + kx] += sum over o of grad_y[o][y][x] * weight[o][d][ky][kx], a
//           register of pixels times kTaps weights at a time, then folds the border onto what it was read from.
// Memory:   reads grad_y once and writes grad_dense; between them stand the padded sums of all blocks of rows, which
//           overlap by a kernel.
// Parallel: over blocks of kBlockRows output rows, then over rows of grad_dense, which add their blocks in order. So
//           nothing depends on the threads.

#include "border.h"
#include "buffer.h"
#include "isa.h"
#include "label_conv2d_gradient.h"
#include "parallel.h"
#include "torchp2p/label_conv2d.h"

namespace torchp2p {
namespace TORCHP2P_ISA {
namespace {

constexpr std::int64_t kBlockRows = 16;
constexpr int kRegisters = kVectorBytes == 64 ? 4 : 2;  // of pixels
constexpr int kTaps = kVectorBytes == 64 ? 6 : 4;       // weights that share a load of those

template <class T> class DenseGradient {
  using A = Accumulator<T>;
  static constexpr std::int64_t kPixels = kRegisters * kLanes<A>;

 public:
  explicit DenseGradient(const LabelConv2dDenseGradient& p)
      : p_(p), s_(p.shape), grad_y_(p.grad_y, p.grad_y_stride), taps_(s_.dense_channels * s_.kernel_h * s_.kernel_w),
        padded_taps_((taps_ + kTaps - 1) / kTaps * kTaps),
        padded_channels_((s_.out_channels + kLanes<A> - 1) / kLanes<A> * kLanes<A>),
        blocks_((s_.out_h() + kBlockRows - 1) / kBlockRows), span_((kBlockRows - 1) * s_.stride_h + s_.kernel_h),
        width_((s_.out_w() + kPixels) * s_.stride_w + s_.kernel_w),
        threads_(thread_count(s_.n * s_.out_h() * s_.out_w() * s_.out_channels)),
        weight_(1, s_.out_channels * padded_taps_), sums_(s_.n * blocks_, s_.dense_channels * span_ * width_),
        planes_(threads_, padded_channels_ * kPixels), scratch_(threads_, padded_channels_ * kPixels),
        row_(threads_, s_.dense_channels * width_), interleaved_(threads_, s_.dense_channels * s_.w + kLanes<A>) {}

  bool ok() const {
    return weight_.ok() && sums_.ok() && planes_.ok() && scratch_.ok() && row_.ok() && interleaved_.ok();
  }

  void run() const {
    pack_weight();
    parallel_for(s_.n * blocks_, threads_, [&](std::int64_t i, int thread) { add_block(i, thread); });
    parallel_for(s_.n * s_.h, threads_, [&](std::int64_t i, int thread) { write_row(i / s_.h, i % s_.h, thread); });
  }

 private:
  // weight[o][tap], zero in the taps that only fill the last group.
  void pack_weight() const {
    const A* from = static_cast<const A*>(p_.weight);
    for (std::int64_t o = 0; o < s_.out_channels; ++o) {
      for (std::int64_t t = 0; t < padded_taps_; ++t) {
        const std::int64_t kx = t % s_.kernel_w, ky = t / s_.kernel_w % s_.kernel_h;
        const std::int64_t c = s_.classes + t / s_.kernel_w / s_.kernel_h;
        const Strides& stride = p_.weight_stride;
        weight_.piece(0)[o * padded_taps_ + t] =
            t < taps_ ? from[o * stride.n + c * stride.c + ky * stride.h + kx * stride.w] : A(0);
      }
    }
  }

  void add_block(std::int64_t index, int thread) const {
    A* sums = sums_.piece(index);
    for (std::int64_t i = 0; i < s_.dense_channels * span_ * width_; ++i) sums[i] = 0;
    const std::int64_t n = index / blocks_, begin = index % blocks_ * kBlockRows;
    for (std::int64_t y = begin; y < begin + kBlockRows && y < s_.out_h(); ++y) {
      for (std::int64_t x = 0; x < s_.out_w(); x += kPixels) {
        const std::int64_t size = s_.out_w() - x < kPixels ? s_.out_w() - x : kPixels;
        A* planes = planes_.piece(thread);
        grad_y_.planes({n, y, x, size, kPixels, 0, s_.out_channels, padded_channels_}, planes, scratch_.piece(thread));
        A* corner = sums + (y - begin) * s_.stride_h * width_ + x * s_.stride_w;
        for (std::int64_t t = 0; t < taps_; t += kTaps) add_taps(planes, t, size, corner);
      }
    }
  }

  // Some pixels of grad_y, seen by kTaps taps from `first` on.
  void add_taps(const A* planes, std::int64_t first, std::int64_t size, A* corner) const {
    Vec<A> sum[kTaps][kRegisters] = {};
    const A* weight = weight_.piece(0) + first;
    for (std::int64_t o = 0; o < s_.out_channels; ++o, planes += kPixels, weight += padded_taps_) {
      Vec<A> grad[kRegisters];
      for (int r = 0; r < kRegisters; ++r) grad[r] = load(planes + r * kLanes<A>);
      for (int t = 0; t < kTaps; ++t) {
        const Vec<A> factor = broadcast(weight[t]);
        for (int r = 0; r < kRegisters; ++r) sum[t][r] += factor * grad[r];
      }
    }
    for (int t = 0; t < kTaps && first + t < taps_; ++t) {
      const std::int64_t tap = first + t, kx = tap % s_.kernel_w, ky = tap / s_.kernel_w % s_.kernel_h;
      A* to = corner + (tap / s_.kernel_w / s_.kernel_h * span_ + ky) * width_ + kx;
      if (s_.stride_w == 1) {
        for (int r = 0; r < kRegisters; ++r) store(to + r * kLanes<A>, load(to + r * kLanes<A>) + sum[t][r]);
      } else {
        A values[kPixels];
        for (int r = 0; r < kRegisters; ++r) store(values + r * kLanes<A>, sum[t][r]);
        for (std::int64_t i = 0; i < size; ++i) to[i * s_.stride_w] += values[i];
      }
    }
  }

  void write_row(std::int64_t n, std::int64_t y, int thread) const {
    A* row = row_.piece(thread);
    for (std::int64_t i = 0; i < s_.dense_channels * width_; ++i) row[i] = 0;
    add_padded_row(n, y + s_.pad_h, row);
    for_each_repeat(y, s_.h, s_.pad_h, s_.pad_mode, [&](std::int64_t d) { add_padded_row(n, d, row); });
    for (std::int64_t d = 0; d < s_.dense_channels; ++d) fold(row + d * width_);
    T* out = static_cast<T*>(p_.grad_dense);
    if (!p_.channels_last) {
      for (std::int64_t d = 0; d < s_.dense_channels; ++d) {
        write_values(row + d * width_ + s_.pad_w, out + ((n * s_.dense_channels + d) * s_.h + y) * s_.w, s_.w);
      }
      return;
    }
    A* interleaved = interleaved_.piece(thread);
    for (std::int64_t x = 0; x < s_.w; ++x) {
      for (std::int64_t d = 0; d < s_.dense_channels; ++d) {
        interleaved[x * s_.dense_channels + d] = row[d * width_ + s_.pad_w + x];
      }
    }
    write_values(interleaved, out + (n * s_.h + y) * s_.w * s_.dense_channels, s_.w * s_.dense_channels);
  }

  // Adds what all blocks have for a row of the padded image.
  void add_padded_row(std::int64_t n, std::int64_t y, A* row) const {
    const std::int64_t step = kBlockRows * s_.stride_h;
    for (std::int64_t block = y < span_ ? 0 : (y - span_) / step + 1; block < blocks_ && block * step <= y; ++block) {
      const A* sums = sums_.piece(n * blocks_ + block) + (y - block * step) * width_;
      for (std::int64_t d = 0; d < s_.dense_channels; ++d) {
        for (std::int64_t x = 0; x < width_; ++x) row[d * width_ + x] += sums[d * span_ * width_ + x];
      }
    }
  }

  void fold(A* row) const {
    for_each_near_border(s_.w, s_.pad_w, [&](std::int64_t x) {
      for_each_repeat(x, s_.w, s_.pad_w, s_.pad_mode, [&](std::int64_t d) { row[s_.pad_w + x] += row[d]; });
    });
  }

  const LabelConv2dDenseGradient& p_;
  const LabelConv2dShape& s_;
  const GradientRows<T> grad_y_;
  const std::int64_t taps_, padded_taps_, padded_channels_, blocks_, span_, width_;
  const int threads_;
  const Buffer<A> weight_, sums_, planes_, scratch_, row_, interleaved_;
};

template <class T> Status run(const LabelConv2dDenseGradient& params) {
  const DenseGradient<T> kernel(params);
  if (!kernel.ok()) return Status::kOutOfMemory;
  kernel.run();
  return Status::kOk;
}

}  // namespace

Status label_conv2d_dense_gradient(const LabelConv2dDenseGradient& params) {
  if (!params.shape.valid()) return Status::kBadArgument;
  switch (params.shape.dtype) {
    case DType::kFloat32: return run<float>(params);
    case DType::kBFloat16: return run<BFloat16>(params);
    case DType::kFloat16: return run<Float16>(params);
    case DType::kFloat64: return run<double>(params);
  }
  return Status::kBadArgument;
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p

TORCHP2P_CPU_ENTRY(label_conv2d_dense_gradient, LabelConv2dDenseGradient)
