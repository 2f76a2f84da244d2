// The gradients of label_conv2d with respect to its weight and bias.
#pragma once

#include "label_conv2d_gradient.h"
#include "label_conv2d_tiles.h"

namespace torchp2p {
namespace TORCHP2P_ISA {
namespace {

template <class T> class Backward {
  using A = Accumulator<T>;

 public:
  Backward(const LabelConv2dBackward& p, const InputRows<A>& rows)
      : p_(p), s_(p.shape), rows_(rows), tiles_(s_.out_channels), out_rows_(s_.n * s_.out_h()),
        label_sums_(s_.kernel_h * s_.classes * s_.kernel_w),
        taps_count_(s_.dense_channels * s_.kernel_h * s_.kernel_w + (p.grad_bias ? 1 : 0)),
        padded_taps_((taps_count_ + kTaps - 1) / kTaps * kTaps), blocks_(count_blocks()),
        threads_(thread_count(out_rows_ * s_.out_w() * s_.out_channels)),
        tables_(blocks_ * tiles_.count, (label_sums_ + padded_taps_) * tiles_.kTile),
        first_pixel_(1, rows.width() + s_.kernel_w), ones_(1, rows.width()), taps_(threads_, padded_taps_),
        grads_(threads_, (s_.out_w() + kChunk) * tiles_.kTile), scratch_(threads_, kChunk * tiles_.kTile) {}

  bool ok() const {
    return tables_.ok() && first_pixel_.ok() && ones_.ok() && taps_.ok() && grads_.ok() && scratch_.ok();
  }

  void run() const {
    find_first_pixels();
    for (std::int64_t x = 0; x < rows_.width(); ++x) ones_.piece(0)[x] = 1;
    parallel_for(blocks_ * tiles_.count, threads_, [&](std::int64_t i, int thread) {
      with_registers(tiles_.registers(i % tiles_.count),
                     [&](auto registers) { sum_block<registers.value>(i / tiles_.count, i % tiles_.count, thread); });
    });
    parallel_for((s_.classes + s_.dense_channels) * s_.kernel_h, threads_,
                 [&](std::int64_t i, int) { write_weight_gradient(i / s_.kernel_h, i % s_.kernel_h); });
    if (p_.grad_bias) {
      for (std::int64_t o = 0; o < s_.out_channels; ++o) {
        static_cast<A*>(p_.grad_bias)[o] = total(label_sums_ + taps_count_ - 1, o);
      }
    }
  }

 private:
  // Enough rows per block that clearing and adding its tables is little work; few enough tables for the memory.
  std::int64_t count_blocks() const {
    constexpr std::int64_t kMost = 32, kLeastRows = 8, kTableBytes = std::int64_t{1} << 28;
    const std::int64_t table = (label_sums_ + padded_taps_) * tiles_.count * tiles_.kTile * std::int64_t{sizeof(A)};
    const std::int64_t worth = 16 * s_.kernel_w * s_.classes / s_.out_w();
    std::int64_t blocks = out_rows_ / (worth > kLeastRows ? worth : kLeastRows);
    if (blocks > kMost) blocks = kMost;
    if (blocks * table > kTableBytes) blocks = kTableBytes / table;
    return blocks > 0 ? blocks : 1;
  }

  // first_pixel(p): the first output column x with x * stride >= p, for p from 1 - kernel_w on; not past the row.
  void find_first_pixels() const {
    for (std::int64_t i = 0; i < rows_.width() + s_.kernel_w; ++i) {
      const std::int64_t p = i - (s_.kernel_w - 1), x = p <= 0 ? 0 : (p + s_.stride_w - 1) / s_.stride_w;
      first_pixel_.piece(0)[i] = static_cast<std::int32_t>(x < s_.out_w() ? x : s_.out_w());
    }
  }
  std::int64_t first_pixel(std::int64_t p) const { return first_pixel_.piece(0)[p + s_.kernel_w - 1]; }

  template <int kR> void sum_block(std::int64_t block, std::int64_t tile, int thread) const {
    constexpr std::int64_t kWidth = kR * kLanes<A>;
    A* table = tables_.piece(block * tiles_.count + tile);
    for (std::int64_t i = 0; i < s_.kernel_h * s_.classes; ++i) {
      if (rows_.present(i % s_.classes)) clear(table + i * s_.kernel_w * kWidth, s_.kernel_w * kWidth);
    }
    A* dense = table + label_sums_ * kWidth;
    clear(dense, padded_taps_ * kWidth);
    A* grads = grads_.piece(thread);
    const std::int64_t end = out_rows_ * (block + 1) / blocks_;
    for (std::int64_t row = out_rows_ * block / blocks_; row < end; ++row) {
      const std::int64_t n = row / s_.out_h(), y = row % s_.out_h();
      read_gradients<kR>(n, y, tile, grads, scratch_.piece(thread));
      for (std::int64_t ky = 0; ky < s_.kernel_h; ++ky) {
        add_runs<kR>(rows_.row(n, y * s_.stride_h + ky), grads, table + ky * s_.classes * s_.kernel_w * kWidth);
      }
      const A** taps = taps_.piece(thread);
      for (std::int64_t t = find_taps(s_, rows_, n, y, taps); t < padded_taps_; ++t) taps[t] = ones_.piece(0);
      for (std::int64_t x = 0; x < s_.out_w(); x += kChunk) {
        const std::int64_t size = s_.out_w() - x < kChunk ? s_.out_w() - x : kChunk;
        for (std::int64_t t = 0; t < padded_taps_; t += kTaps) {
          add_products<kR>(x, size, grads + x * kWidth, taps + t, dense + t * kWidth);
        }
      }
    }
  }

  static void clear(A* values, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) values[i] = 0;
  }

  // Row y of the gradient as pixels of a tile's channels, zeros in the channels that do not exist.
  template <int kR>
  void read_gradients(std::int64_t n, std::int64_t y, std::int64_t tile, A* grads, A* scratch) const {
    constexpr std::int64_t kWidth = kR * kLanes<A>;
    const GradientRows<T> rows(p_.grad_y, p_.grad_y_stride);
    for (std::int64_t x = 0; x < s_.out_w(); x += kChunk) {
      const std::int64_t size = s_.out_w() - x < kChunk ? s_.out_w() - x : kChunk;
      rows.pixels({n, y, x, size, kChunk, tiles_.begin(tile), tiles_.size(tile), kWidth}, grads + x * kWidth, scratch);
    }
  }

  // One kernel row: sums[label][kernel column] += the gradients of the pixels that see the label there.
  template <int kR> void add_runs(std::int64_t row, const A* grads, A* sums) const {
    constexpr std::int64_t kWidth = kR * kLanes<A>;
    const std::int32_t *classes = rows_.classes(row), *ends = rows_.ends(row);
    for (std::int64_t begin = 0, end; begin < rows_.width(); begin = end) {
      end = ends[begin];
      if (classes[begin] < s_.classes) add_run<kR>(begin, end, grads, sums + classes[begin] * s_.kernel_w * kWidth);
    }
  }

  // Kernel column kx sees run [begin, end) from the pixels [first_pixel(begin - kx), first_pixel(end - kx)).
  template <int kR> void add_run(std::int64_t begin, std::int64_t end, const A* grads, A* sums) const {
    constexpr std::int64_t kWidth = kR * kLanes<A>;
    const std::int64_t kw = s_.kernel_w, common_begin = first_pixel(begin), common_end = first_pixel(end - kw + 1);
    if (common_begin >= common_end) {
      for (std::int64_t kx = 0; kx < kw; ++kx) {
        add_pixels<kR>(first_pixel(begin - kx), first_pixel(end - kx), grads, sums + kx * kWidth);
      }
      return;
    }
    Vec<A> sum[kR] = {};
    for (std::int64_t x = common_begin; x < common_end; ++x) add_tile<A, kR>(grads + x * kWidth, sum);
    for (std::int64_t kx = 0, from = common_begin; kx < kw; ++kx) {
      for (; from > first_pixel(begin - kx); --from) add_tile<A, kR>(grads + (from - 1) * kWidth, sum);
      add_to<kR>(sum, sums + kx * kWidth);
    }
    for (int r = 0; r < kR; ++r) sum[r] = Vec<A>{};
    for (std::int64_t kx = kw - 2, to = common_end; kx >= 0; --kx) {
      for (; to < first_pixel(end - kx); ++to) add_tile<A, kR>(grads + to * kWidth, sum);
      add_to<kR>(sum, sums + kx * kWidth);
    }
  }

  template <int kR> static void add_to(const Vec<A> (&sum)[kR], A* to) {
    for (int r = 0; r < kR; ++r) store(to + r * kLanes<A>, load(to + r * kLanes<A>) + sum[r]);
  }

  template <int kR> static void add_pixels(std::int64_t begin, std::int64_t end, const A* grads, A* to) {
    if (begin == end) return;
    Vec<A> sum[kR];
    load_tile<A, kR>(to, sum);
    for (std::int64_t x = begin; x < end; ++x) add_tile<A, kR>(grads + x * kR * kLanes<A>, sum);
    store_tile<A, kR>(to, sum);
  }

  // sums[tap] += tap * gradient over some pixels of a row, kTaps taps at a time.
  template <int kR>
  void add_products(std::int64_t x, std::int64_t size, const A* grads, const A* const* taps, A* sums) const {
    constexpr std::int64_t kWidth = kR * kLanes<A>;
    Vec<A> sum[kTaps][kR];
    for (int t = 0; t < kTaps; ++t) load_tile<A, kR>(sums + t * kWidth, sum[t]);
    for (std::int64_t i = 0; i < size; ++i) {
      Vec<A> grad[kR];
      load_tile<A, kR>(grads + i * kWidth, grad);
      for (int t = 0; t < kTaps; ++t) {
        const Vec<A> value = broadcast(taps[t][(x + i) * s_.stride_w]);
        for (int r = 0; r < kR; ++r) sum[t][r] += value * grad[r];
      }
    }
    for (int t = 0; t < kTaps; ++t) store_tile<A, kR>(sums + t * kWidth, sum[t]);
  }

  void write_weight_gradient(std::int64_t channel, std::int64_t ky) const {
    const Strides& stride = p_.grad_weight_stride;
    const std::int64_t dense = channel - s_.classes;
    for (std::int64_t kx = 0; kx < s_.kernel_w; ++kx) {
      const std::int64_t sum = dense < 0 ? (ky * s_.classes + channel) * s_.kernel_w + kx
                                         : label_sums_ + (dense * s_.kernel_h + ky) * s_.kernel_w + kx;
      A* out = static_cast<A*>(p_.grad_weight) + channel * stride.c + ky * stride.h + kx * stride.w;
      const bool absent = dense < 0 && !rows_.present(channel);
      for (std::int64_t o = 0; o < s_.out_channels; ++o) out[o * stride.n] = absent ? A(0) : total(sum, o);
    }
  }

  // A sum over all blocks, in their order.
  A total(std::int64_t sum, std::int64_t o) const {
    const std::int64_t tile = o / tiles_.kTile, width = tiles_.registers(tile) * kLanes<A>;
    double value = 0;
    for (std::int64_t block = 0; block < blocks_; ++block) {
      value += static_cast<double>(tables_.piece(block * tiles_.count + tile)[sum * width + o - tiles_.begin(tile)]);
    }
    return static_cast<A>(value);
  }

  const LabelConv2dBackward& p_;
  const LabelConv2dShape& s_;
  const InputRows<A>& rows_;
  const Tiles<A> tiles_;
  const std::int64_t out_rows_, label_sums_, taps_count_, padded_taps_, blocks_;
  const int threads_;
  const Buffer<A> tables_;
  const Buffer<std::int32_t> first_pixel_;
  const Buffer<A> ones_;
  const Buffer<const A*> taps_;
  const Buffer<A> grads_, scratch_;
};

}  // namespace
}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
