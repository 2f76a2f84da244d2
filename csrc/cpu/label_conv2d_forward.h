// The forward of label_conv2d: one weight vector per run of equal labels, and the dense channels.
#pragma once

#include "label_conv2d_tiles.h"

namespace torchp2p {
namespace TORCHP2P_ISA {
namespace {

// A wide kernel row is taken in segments of at most kWidest columns, to bound the number of intervals.
struct Segments {
  static constexpr std::int64_t kWidest = 8;
  std::int64_t kernel_w, count, width, intervals;

  explicit Segments(std::int64_t kw)
      : kernel_w(kw), count((kw + kWidest - 1) / kWidest), width((kw + count - 1) / count),
        intervals(width * (width + 1) / 2) {}
  std::int64_t begin(std::int64_t i) const { return i * width; }
  std::int64_t size(std::int64_t i) const { return kernel_w - begin(i) < width ? kernel_w - begin(i) : width; }
  // The place of interval [a, b) among all, 0 <= a < b <= width.
  std::int64_t interval(std::int64_t a, std::int64_t b) const { return a * (2 * width - a + 1) / 2 + b - a - 1; }
};

// The part of a window that lies in one segment of one kernel row.
struct Strip {
  const std::int32_t *classes, *ends;  // from the segment's first column on
  std::int64_t width, table;           // the first of its sums, counted in vectors
};

template <class T> class Forward {
  using A = Accumulator<T>;

 public:
  Forward(const LabelConv2dForward& p, const InputRows<A>& rows)
      : p_(p), s_(p.shape), rows_(rows), tiles_(s_.out_channels), segments_(s_.kernel_w),
        threads_(thread_count(s_.n * s_.out_h() * s_.out_w() * s_.out_channels)), padded_(tiles_.padded()),
        label_strips_(s_.kernel_h * segments_.count), dense_taps_(s_.dense_channels * s_.kernel_h * s_.kernel_w),
        sums_(1, label_strips_ * s_.classes * segments_.intervals * padded_), dense_weight_(dense_taps_, padded_),
        bias_(1, padded_), packed_(threads_, s_.kernel_w * padded_), strips_(threads_, label_strips_),
        taps_(threads_, dense_taps_), changes_(threads_, s_.out_w()), pixels_(threads_, kChunk * tiles_.kTile),
        planes_(threads_, kChunk * tiles_.kTile) {}

  bool ok() const {
    return sums_.ok() && dense_weight_.ok() && bias_.ok() && packed_.ok() && strips_.ok() && taps_.ok() &&
           changes_.ok() && pixels_.ok() && planes_.ok();
  }

  void run() const {
    pack_dense_weight();
    parallel_for(s_.classes * s_.kernel_h, threads_, [&](std::int64_t i, int thread) {
      if (rows_.present(i / s_.kernel_h)) sum_intervals(i / s_.kernel_h, i % s_.kernel_h, thread);
    });
    parallel_for(s_.n * s_.out_h(), threads_,
                 [&](std::int64_t row, int thread) { write_row(row / s_.out_h(), row % s_.out_h(), thread); });
  }

 private:
  void pack_dense_weight() const {
    const A *weight = static_cast<const A*>(p_.weight), *bias = static_cast<const A*>(p_.bias);
    for (std::int64_t o = 0; o < padded_; ++o) {
      const bool real = o < s_.out_channels;
      bias_.piece(0)[o] = real && bias ? bias[o] : A(0);
      for (std::int64_t t = 0; t < dense_taps_; ++t) {
        const std::int64_t kx = t % s_.kernel_w, ky = t / s_.kernel_w % s_.kernel_h;
        const std::int64_t c = s_.classes + t / s_.kernel_w / s_.kernel_h;
        dense_weight_.piece(t)[o] = real ? weight[weight_offset(o, c, ky) + kx * p_.weight_stride.w] : A(0);
      }
    }
  }

  std::int64_t weight_offset(std::int64_t o, std::int64_t c, std::int64_t ky) const {
    return o * p_.weight_stride.n + c * p_.weight_stride.c + ky * p_.weight_stride.h;
  }

  // All sums over intervals of kernel columns of one label and kernel row.
  void sum_intervals(std::int64_t label, std::int64_t ky, int thread) const {
    const A* weight = static_cast<const A*>(p_.weight);
    A* columns = packed_.piece(thread);
    for (std::int64_t o = 0; o < padded_; ++o) {
      for (std::int64_t kx = 0; kx < s_.kernel_w; ++kx) {
        const bool real = o < s_.out_channels;
        columns[kx * padded_ + o] = real ? weight[weight_offset(o, label, ky) + kx * p_.weight_stride.w] : A(0);
      }
    }
    for (std::int64_t i = 0; i < segments_.count; ++i) {
      A* sums = sums_.piece(0) + (table_of(ky, i) + label * segments_.intervals) * padded_;
      for (std::int64_t a = 0; a < segments_.size(i); ++a) {
        for (std::int64_t b = a + 1; b <= segments_.size(i); ++b) {
          const A* last = columns + (segments_.begin(i) + b - 1) * padded_;
          A* sum = sums + segments_.interval(a, b) * padded_;
          for (std::int64_t o = 0; o < padded_; ++o) sum[o] = b == a + 1 ? last[o] : (sum - padded_)[o] + last[o];
        }
      }
    }
  }

  std::int64_t table_of(std::int64_t ky, std::int64_t segment) const {
    return (ky * segments_.count + segment) * s_.classes * segments_.intervals;
  }

  void write_row(std::int64_t n, std::int64_t y, int thread) const {
    Strip* strips = strips_.piece(thread);
    for (std::int64_t ky = 0; ky < s_.kernel_h; ++ky) {
      const std::int64_t row = rows_.row(n, y * s_.stride_h + ky);
      for (std::int64_t i = 0; i < segments_.count; ++i) {
        const std::int64_t first = segments_.begin(i);
        strips[ky * segments_.count + i] = {rows_.classes(row) + first, rows_.ends(row) + first, segments_.size(i),
                                            table_of(ky, i)};
      }
    }
    find_changes(strips, changes_.piece(thread));
    find_taps(s_, rows_, n, y, taps_.piece(thread));
    for (std::int64_t tile = 0; tile < tiles_.count; ++tile) {
      with_registers(tiles_.registers(tile), [&](auto registers) { write_tile<registers.value>(n, y, tile, thread); });
    }
  }

  // Marks the pixels whose windows do not merely continue the runs of the pixel before.
  void find_changes(const Strip* strips, std::uint8_t* changes) const {
    const std::int64_t width = s_.out_w();
    for (std::int64_t x = 0; x < width; ++x) changes[x] = x == 0;
    for (std::int64_t i = 0; i < label_strips_; ++i) {
      const std::int32_t* ends = strips[i].ends;
      const std::int64_t from = segments_.begin(i % segments_.count);
      for (std::int64_t x = 1; x < width; ++x) {
        changes[x] |= ends[(x - 1) * s_.stride_w] < x * s_.stride_w + from + strips[i].width;
      }
    }
  }

  template <int kR> void write_tile(std::int64_t n, std::int64_t y, std::int64_t tile, int thread) const {
    A* pixels = pixels_.piece(thread);
    const std::int64_t first = tiles_.begin(tile);
    Vec<A> sum[kR] = {};  // the bias comes last: as large as the result, it would round off what is added to it
    for (std::int64_t x = 0; x < s_.out_w(); x += kChunk) {
      const std::int64_t size = s_.out_w() - x < kChunk ? s_.out_w() - x : kChunk;
      for (std::int64_t i = 0; i < size; ++i) {
        if (changes_.piece(thread)[x + i]) gather<kR>((x + i) * s_.stride_w, first, strips_.piece(thread), sum);
        A* pixel = pixels + i * kR * kLanes<A>;
        store_tile<A, kR>(pixel, sum);
        if (s_.dense_channels == 0) add_bias<kR>(first, pixel);
      }
      if (s_.dense_channels > 0) {
        std::int64_t i = 0;
        for (; i + kPixels <= size; i += kPixels)
          add_dense<kR, kPixels>(x + i, first, taps_.piece(thread), pixels + i * kR * kLanes<A>);
        for (; i < size; ++i) add_dense<kR, 1>(x + i, first, taps_.piece(thread), pixels + i * kR * kLanes<A>);
      }
      if (p_.channels_last) {
        write_pixels<kR>(n, y, x, size, tile, pixels);
      } else {
        write_planes<kR>(n, y, x, size, tile, pixels, planes_.piece(thread));
      }
    }
  }

  template <int kR> void add_bias(std::int64_t first, A* pixel) const {
    Vec<A> sum[kR];
    load_tile<A, kR>(pixel, sum);
    add_tile<A, kR>(bias_.piece(0) + first, sum);
    store_tile<A, kR>(pixel, sum);
  }

  // The label part of one pixel.
  template <int kR>
  void gather(std::int64_t x, std::int64_t first, const Strip* strips, Vec<A> (&sum)[kR]) const {
    const A* sums = sums_.piece(0) + first;
    for (int r = 0; r < kR; ++r) sum[r] = Vec<A>{};
    std::int64_t segment = 0;
    for (std::int64_t i = 0; i < label_strips_; ++i) {
      const Strip& strip = strips[i];
      const std::int64_t origin = x + segments_.begin(segment);
      segment = segment + 1 < segments_.count ? segment + 1 : 0;
      for (std::int64_t a = 0; a < strip.width;) {
        const std::int64_t to_end = strip.ends[x + a] - origin, b = to_end < strip.width ? to_end : strip.width;
        const std::int64_t label = strip.classes[x + a];
        if (label < s_.classes) {
          const std::int64_t place = strip.table + label * segments_.intervals + segments_.interval(a, b);
          add_tile<A, kR>(sums + place * padded_, sum);
        }
        a = b;
      }
    }
  }

  // The dense part of kP pixels, and the bias.
  template <int kR, int kP>
  void add_dense(std::int64_t x, std::int64_t first, const A* const* taps, A* pixels) const {
    Vec<A> sum[kP][kR] = {};
    for (std::int64_t t = 0; t < dense_taps_; ++t) {
      Vec<A> weight[kR];
      load_tile<A, kR>(dense_weight_.piece(t) + first, weight);
      for (int p = 0; p < kP; ++p) {
        const Vec<A> value = broadcast(taps[t][(x + p) * s_.stride_w]);
        for (int r = 0; r < kR; ++r) sum[p][r] += value * weight[r];
      }
    }
    for (int p = 0; p < kP; ++p, pixels += kR * kLanes<A>) {
      add_tile<A, kR>(pixels, sum[p]);
      add_tile<A, kR>(bias_.piece(0) + first, sum[p]);
      store_tile<A, kR>(pixels, sum[p]);
    }
  }

  template <int kR>
  void write_pixels(std::int64_t n, std::int64_t y, std::int64_t x, std::int64_t size, std::int64_t tile,
                    const A* pixels) const {
    T* out = static_cast<T*>(p_.y) + ((n * s_.out_h() + y) * s_.out_w() + x) * s_.out_channels + tiles_.begin(tile);
    for (std::int64_t i = 0; i < size; ++i, out += s_.out_channels, pixels += kR * kLanes<A>) {
      write_values(pixels, out, tiles_.size(tile));
    }
  }

  template <int kR>
  void write_planes(std::int64_t n, std::int64_t y, std::int64_t x, std::int64_t size, std::int64_t tile,
                    const A* pixels, A* planes) const {
    const std::int64_t plane = s_.out_h() * s_.out_w();
    T* out = static_cast<T*>(p_.y) + (n * s_.out_channels + tiles_.begin(tile)) * plane + y * s_.out_w() + x;
    transpose(pixels, kR * kLanes<A>, planes, kChunk, kChunk, kR * kLanes<A>);
    for (std::int64_t o = 0; o < tiles_.size(tile); ++o) write_values(planes + o * kChunk, out + o * plane, size);
  }

  const LabelConv2dForward& p_;
  const LabelConv2dShape& s_;
  const InputRows<A>& rows_;
  const Tiles<A> tiles_;
  const Segments segments_;
  const int threads_;
  const std::int64_t padded_, label_strips_, dense_taps_;
  const Buffer<A> sums_, dense_weight_, bias_, packed_;
  const Buffer<Strip> strips_;
  const Buffer<const A*> taps_;
  const Buffer<std::uint8_t> changes_;
  const Buffer<A> pixels_, planes_;
};

}  // namespace
}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
