// label_conv2d on the CPU.
//
// Forward:  an output pixel sums, for each kernel row, one weight vector per run of equal labels that its window
//           meets: usually one, because labels are constant over large areas. The vectors are sums of the weights
//           over an interval of kernel columns, made once per call for every label, kernel row and interval. A
//           pixel whose windows all continue the runs of its left neighbour's takes its sum over. Dense channels
//           are convolved directly, four pixels at a time.
// Backward: for each run and kernel row, the gradients of the output row are summed once where all kernel columns
//           see the run, then extended column by column. Dense channels and the bias (a channel of ones) are
//           correlated directly.
// Memory:   forward reads labels and dense channels and writes y; backward reads grad_y. Tables hold
//           kh * kw (kw + 1) / 2 * labels * O sums (forward) and kh * kw * labels * O per block of rows (backward).
// Parallel: forward over output rows; backward over blocks of output rows, cut by the shape alone, whose tables are
//           added in their order in double. Both work on tiles of up to four registers of output channels.

#include <type_traits>

#include "isa.h"
#include "label_conv2d_gradient.h"
#include "label_conv2d_rows.h"

namespace torchp2p {
namespace TORCHP2P_ISA {
namespace {

constexpr int kTileRegisters = 4;                  // output channels in a tile, in registers
constexpr std::int64_t kChunk = 32;                // pixels that are turned over or convolved at a time
constexpr int kPixels = 4;                         // pixels of a row that share a load of the dense weights
constexpr int kTaps = kVectorBytes == 64 ? 4 : 2;  // taps of the dense weight gradient that share a load of grad_y

// body(number of registers as a constant).
template <class Body> inline void with_registers(std::int64_t registers, const Body& body) {
  switch (registers) {
    case 1: return body(std::integral_constant<int, 1>{});
    case 2: return body(std::integral_constant<int, 2>{});
    case 3: return body(std::integral_constant<int, 3>{});
    default: return body(std::integral_constant<int, kTileRegisters>{});
  }
}

// Output channels, cut into tiles; each is padded with zeros to whole registers.
template <class A> struct Tiles {
  std::int64_t channels, count;

  explicit Tiles(std::int64_t c) : channels(c), count((c + kTile - 1) / kTile) {}
  std::int64_t begin(std::int64_t tile) const { return tile * kTile; }
  std::int64_t size(std::int64_t tile) const { return channels - begin(tile) < kTile ? channels - begin(tile) : kTile; }
  std::int64_t registers(std::int64_t tile) const { return (size(tile) + kLanes<A> - 1) / kLanes<A>; }
  std::int64_t padded() const { return (channels + kLanes<A> - 1) / kLanes<A> * kLanes<A>; }

  static constexpr std::int64_t kTile = kTileRegisters * kLanes<A>;
};

template <class A, int kR> inline void load_tile(const A* from, Vec<A> (&to)[kR]) {
  for (int r = 0; r < kR; ++r) to[r] = load(from + r * kLanes<A>);
}
template <class A, int kR> inline void add_tile(const A* from, Vec<A> (&to)[kR]) {
  for (int r = 0; r < kR; ++r) to[r] += load(from + r * kLanes<A>);
}
template <class A, int kR> inline void store_tile(A* to, const Vec<A> (&from)[kR]) {
  for (int r = 0; r < kR; ++r) store(to + r * kLanes<A>, from[r]);
}

// The rows of the dense channels that an output row sees: one per channel, kernel row and kernel column.
template <class A>
std::int64_t find_taps(const LabelConv2dShape& s, const InputRows<A>& rows, std::int64_t n, std::int64_t y,
                       const A** taps) {
  std::int64_t count = 0;
  for (std::int64_t d = 0; d < s.dense_channels; ++d) {
    for (std::int64_t ky = 0; ky < s.kernel_h; ++ky) {
      const A* row = rows.dense(rows.row(n, y * s.stride_h + ky), d);
      for (std::int64_t kx = 0; kx < s.kernel_w; ++kx) taps[count++] = row + kx;
    }
  }
  return count;
}

// ---------------------------------------------------------------------------------------------- forward

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
    Vec<A> sum[kR] = {};
    for (std::int64_t x = 0; x < s_.out_w(); x += kChunk) {
      const std::int64_t size = s_.out_w() - x < kChunk ? s_.out_w() - x : kChunk;
      for (std::int64_t i = 0; i < size; ++i) {
        if (changes_.piece(thread)[x + i]) gather<kR>((x + i) * s_.stride_w, first, strips_.piece(thread), sum);
        store_tile<A, kR>(pixels + i * kR * kLanes<A>, sum);
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

  // The label part of one pixel, bias included.
  template <int kR>
  void gather(std::int64_t x, std::int64_t first, const Strip* strips, Vec<A> (&sum)[kR]) const {
    const A* sums = sums_.piece(0) + first;
    load_tile<A, kR>(bias_.piece(0) + first, sum);
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

  template <int kR, int kP>
  void add_dense(std::int64_t x, std::int64_t first, const A* const* taps, A* pixels) const {
    Vec<A> sum[kP][kR];
    for (int p = 0; p < kP; ++p) load_tile<A, kR>(pixels + p * kR * kLanes<A>, sum[p]);
    for (std::int64_t t = 0; t < dense_taps_; ++t) {
      Vec<A> weight[kR];
      load_tile<A, kR>(dense_weight_.piece(t) + first, weight);
      for (int p = 0; p < kP; ++p) {
        const Vec<A> value = broadcast(taps[t][(x + p) * s_.stride_w]);
        for (int r = 0; r < kR; ++r) sum[p][r] += value * weight[r];
      }
    }
    for (int p = 0; p < kP; ++p) store_tile<A, kR>(pixels + p * kR * kLanes<A>, sum[p]);
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

// --------------------------------------------------------------------------------------------- backward

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

// -------------------------------------------------------------------------------------------- selection

template <class T> Status forward(const LabelConv2dForward& params) {
  InputRows<Accumulator<T>> rows(params.shape, params.input);
  if (!rows.ok()) return Status::kOutOfMemory;
  const std::int64_t bad_label = rows.prepare();
  if (bad_label >= 0 && !params.ignore_out_of_range) {
    *params.bad_label = bad_label;
    return Status::kBadArgument;
  }
  const Forward<T> kernel(params, rows);
  if (!kernel.ok()) return Status::kOutOfMemory;
  kernel.run();
  return Status::kOk;
}

template <class T> Status backward(const LabelConv2dBackward& params) {
  InputRows<Accumulator<T>> rows(params.shape, params.input);
  if (!rows.ok()) return Status::kOutOfMemory;
  rows.prepare();
  const Backward<T> kernel(params, rows);
  if (!kernel.ok()) return Status::kOutOfMemory;
  kernel.run();
  return Status::kOk;
}

}  // namespace

Status label_conv2d_forward(const LabelConv2dForward& params) {
  *params.bad_label = -1;
  if (!params.shape.valid()) return Status::kBadArgument;
  switch (params.shape.dtype) {
    case DType::kFloat32: return forward<float>(params);
    case DType::kBFloat16: return forward<BFloat16>(params);
    case DType::kFloat16: return forward<Float16>(params);
    case DType::kFloat64: return forward<double>(params);
  }
  return Status::kBadArgument;
}

Status label_conv2d_backward(const LabelConv2dBackward& params) {
  if (!params.shape.valid()) return Status::kBadArgument;
  switch (params.shape.dtype) {
    case DType::kFloat32: return backward<float>(params);
    case DType::kBFloat16: return backward<BFloat16>(params);
    case DType::kFloat16: return backward<Float16>(params);
    case DType::kFloat64: return backward<double>(params);
  }
  return Status::kBadArgument;
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p

TORCHP2P_CPU_ENTRY(label_conv2d_forward, LabelConv2dForward)
TORCHP2P_CPU_ENTRY(label_conv2d_backward, LabelConv2dBackward)
