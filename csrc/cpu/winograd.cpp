// The transforms of Winograd's convolution on the CPU.
//
// Memory:   the image or the weight is read or written once (image rows that tiles share are in the cache the second
//           time), and the frequencies once, (m + 2)^2 / m^2 values for a pixel and (m + 2)^2 / 9 for a weight.
// Parallel: a register holds as many channels of one place. Tiles stand alone, but for the adjoint of the input
//           transform, whose tiles overlap: there the channels stand alone, and a thread adds up an image of them in
//           the order of the tiles.
#include "torchp2p/winograd.h"
#include "buffer.h"
#include "isa.h"
#include "parallel.h"
#include "winograd_matrices.h"

#include <type_traits>

namespace torchp2p {
namespace TORCHP2P_ISA {
namespace {

// Channels that lie `stride` apart, the first n of a register; the others are 0.
template <class A> inline Vec<A> gather(const A* p, std::int64_t stride, int n) {
  if (stride == 1 && n == kLanes<A>) return load(p);
  A lanes[kLanes<A>] = {};
  for (int i = 0; i < n; ++i) lanes[i] = p[i * stride];
  return load(lanes);
}

template <class A> inline void scatter(A* p, std::int64_t stride, int n, Vec<A> v) {
  if (stride == 1 && n == kLanes<A>) return store(p, v);
  A lanes[kLanes<A>];
  store(lanes, v);
  for (int i = 0; i < n; ++i) p[i * stride] = lanes[i];
}

template <class A> inline int lanes_from(std::int64_t channel, std::int64_t channels) {
  return static_cast<int>(channels - channel < kLanes<A> ? channels - channel : kLanes<A>);
}

// Where a tile lies in an image: kSide x kSide pixels, of which those from `top` and `left` on, up to `bottom` and
// `right`, are there.
struct Place {
  std::int64_t row, column;  // of its first pixel, which may lie outside
  int top, bottom, left, right;

  Place(std::int64_t row, std::int64_t column, int side, std::int64_t height, std::int64_t width)
      : row(row), column(column), top(first(row, side)), bottom(last(row, side, height)), left(first(column, side)),
        right(last(column, side, width)) {}

 private:
  static int first(std::int64_t at, int side) { return at < 0 ? static_cast<int>(-at < side ? -at : side) : 0; }
  static int last(std::int64_t at, int side, std::int64_t size) {
    return static_cast<int>(size - at < side ? (size > at ? size - at : 0) : side);
  }
};

// What the transforms of images share: the result's tiles laid over one of the two images.
template <class A, int kM> class Tiles {
 public:
  static constexpr int kIn = kM + 2, kFrequencies = kIn * kIn;

  explicit Tiles(const WinogradImage& p)
      : p_(p), t_(p.tiles), image_(static_cast<A*>(p.image)), frequencies_(static_cast<A*>(p.frequencies)),
        threads_(thread_count(t_.count() * t_.channels * kFrequencies)) {}

  // The tile of the result, and the pixels of the input that it is made of.
  Place of_result(std::int64_t row, std::int64_t column) const {
    return {row * kM, column * kM, kM, t_.out_height(), t_.out_width()};
  }
  Place of_input(std::int64_t row, std::int64_t column) const {
    return {row * kM - t_.pad, column * kM - t_.pad, kIn, t_.height, t_.width};
  }

  A* pixel(std::int64_t sample, std::int64_t channel, std::int64_t row, std::int64_t column) const {
    return image_ + sample * p_.stride.n + channel * p_.stride.c + row * p_.stride.h + column * p_.stride.w;
  }
  // The first frequency of a tile; the next is next_frequency() further on.
  A* frequency(std::int64_t sample, std::int64_t row, std::int64_t column, std::int64_t channel) const {
    return frequencies_ + ((sample * t_.rows() + row) * t_.columns() + column) * t_.channels + channel;
  }
  std::int64_t next_frequency() const { return t_.count() * t_.channels; }

  // body(sample, tile row, tile column, channel, lanes) for every tile, a row of them at a time.
  template <class Body> void for_each(const Body& body) const {
    parallel_for(t_.samples * t_.rows(), threads_, [&](std::int64_t i, int) {
      for (std::int64_t column = 0; column < t_.columns(); ++column) {
        for (std::int64_t c = 0; c < t_.channels; c += kLanes<A>) {
          body(i / t_.rows(), i % t_.rows(), column, c, lanes_from<A>(c, t_.channels));
        }
      }
    });
  }

  template <int kSide> void read(const Place& at, std::int64_t sample, std::int64_t c, int lanes, Vec<A>* to) const {
    for (int i = 0; i < kSide * kSide; ++i) to[i] = Vec<A>{};
    for (int i = at.top; i < at.bottom; ++i) {
      for (int j = at.left; j < at.right; ++j) {
        to[i * kSide + j] = gather(pixel(sample, c, at.row + i, at.column + j), p_.stride.c, lanes);
      }
    }
  }
  void write_frequencies(const Vec<A>* values, A* to, int lanes) const {
    for (int f = 0; f < kFrequencies; ++f) scatter(to + f * next_frequency(), 1, lanes, values[f]);
  }
  void read_frequencies(const A* from, int lanes, Vec<A>* to) const {
    for (int f = 0; f < kFrequencies; ++f) to[f] = gather(from + f * next_frequency(), 1, lanes);
  }

  const WinogradImage& p_;
  const WinogradTiles& t_;
  A *image_, *frequencies_;
  int threads_;
};

template <class A, int kM> Status input(const WinogradImage& p) {
  const Tiles<A, kM> tiles(p);
  tiles.for_each([&](std::int64_t sample, std::int64_t row, std::int64_t column, std::int64_t c, int lanes) {
    constexpr int kIn = kM + 2;
    Vec<A> pixels[kIn * kIn], found[kIn * kIn];
    tiles.template read<kIn>(tiles.of_input(row, column), sample, c, lanes, pixels);
    sandwich<InputOf<kM>, A>(pixels, found);
    tiles.write_frequencies(found, tiles.frequency(sample, row, column, c), lanes);
  });
  return Status::kOk;
}

template <class A, int kM> Status output_adjoint(const WinogradImage& p) {
  const Tiles<A, kM> tiles(p);
  tiles.for_each([&](std::int64_t sample, std::int64_t row, std::int64_t column, std::int64_t c, int lanes) {
    Vec<A> pixels[kM * kM], found[(kM + 2) * (kM + 2)];
    tiles.template read<kM>(tiles.of_result(row, column), sample, c, lanes, pixels);
    sandwich<Transposed<OutputOf<kM>>, A>(pixels, found);
    tiles.write_frequencies(found, tiles.frequency(sample, row, column, c), lanes);
  });
  return Status::kOk;
}

template <class A, int kM> Status output(const WinogradImage& p) {
  const Tiles<A, kM> tiles(p);
  tiles.for_each([&](std::int64_t sample, std::int64_t row, std::int64_t column, std::int64_t c, int lanes) {
    Vec<A> values[(kM + 2) * (kM + 2)], found[kM * kM], bias{};
    tiles.read_frequencies(tiles.frequency(sample, row, column, c), lanes, values);
    sandwich<OutputOf<kM>, A>(values, found);
    if (p.bias) bias = gather(static_cast<const A*>(p.bias) + c, 1, lanes);
    const Place at = tiles.of_result(row, column);
    for (int i = 0; i < at.bottom; ++i) {
      for (int j = 0; j < at.right; ++j) {
        scatter(tiles.pixel(sample, c, at.row + i, at.column + j), p.stride.c, lanes, found[i * kM + j] + bias);
      }
    }
  });
  return Status::kOk;
}

template <class A, int kM> Status input_adjoint(const WinogradImage& p) {
  const Tiles<A, kM> tiles(p);
  const WinogradTiles& t = p.tiles;
  const std::int64_t groups = (t.channels + kLanes<A> - 1) / kLanes<A>;
  const Buffer<A> images(tiles.threads_, t.height * t.width * kLanes<A>);
  if (!images.ok()) return Status::kOutOfMemory;
  parallel_for(t.samples * groups, tiles.threads_, [&](std::int64_t item, int thread) {
    const std::int64_t sample = item / groups, c = item % groups * kLanes<A>;
    const int lanes = lanes_from<A>(c, t.channels);
    A* sums = images.piece(thread);  // (H, W, lanes)
    for (std::int64_t i = 0; i < t.height * t.width * kLanes<A>; ++i) sums[i] = 0;
    for (std::int64_t row = 0; row < t.rows(); ++row) {
      for (std::int64_t column = 0; column < t.columns(); ++column) {
        constexpr int kIn = kM + 2;
        Vec<A> values[kIn * kIn], found[kIn * kIn];
        tiles.read_frequencies(tiles.frequency(sample, row, column, c), lanes, values);
        sandwich<Transposed<InputOf<kM>>, A>(values, found);
        const Place at = tiles.of_input(row, column);
        for (int i = at.top; i < at.bottom; ++i) {
          for (int j = at.left; j < at.right; ++j) {
            A* sum = sums + ((at.row + i) * t.width + at.column + j) * kLanes<A>;
            store(sum, load(sum) + found[i * kIn + j]);
          }
        }
      }
    }
    for (std::int64_t row = 0; row < t.height; ++row) {
      for (std::int64_t column = 0; column < t.width; ++column) {
        scatter(tiles.pixel(sample, c, row, column), p.stride.c, lanes,
                load(sums + (row * t.width + column) * kLanes<A>));
      }
    }
  });
  return Status::kOk;
}

// body(weights of filter o from channel c on, their first frequency, lanes) for every filter.
template <class A, class Body> void for_each_filter(const WinogradFilter& p, const Body& body) {
  parallel_for(p.outputs, thread_count(p.outputs * p.inputs * 9), [&](std::int64_t o, int) {
    for (std::int64_t c = 0; c < p.inputs; c += kLanes<A>) {
      body(static_cast<A*>(p.weight) + o * p.stride.n + c * p.stride.c,
           static_cast<A*>(p.frequencies) + o * p.inputs + c, lanes_from<A>(c, p.inputs));
    }
  });
}

template <class A, int kM> Status filter(const WinogradFilter& p) {
  for_each_filter<A>(p, [&](const A* weight, A* frequencies, int lanes) {
    Vec<A> taps[9], found[(kM + 2) * (kM + 2)];
    for (int i = 0; i < 9; ++i) taps[i] = gather(weight + i / 3 * p.stride.h + i % 3 * p.stride.w, p.stride.c, lanes);
    sandwich<FilterOf<kM>, A>(taps, found);
    for (int f = 0; f < (kM + 2) * (kM + 2); ++f) scatter(frequencies + f * p.outputs * p.inputs, 1, lanes, found[f]);
  });
  return Status::kOk;
}

template <class A, int kM> Status filter_adjoint(const WinogradFilter& p) {
  for_each_filter<A>(p, [&](A* weight, const A* frequencies, int lanes) {
    Vec<A> values[(kM + 2) * (kM + 2)], taps[9];
    for (int f = 0; f < (kM + 2) * (kM + 2); ++f) values[f] = gather(frequencies + f * p.outputs * p.inputs, 1, lanes);
    sandwich<Transposed<FilterOf<kM>>, A>(values, taps);
    for (int i = 0; i < 9; ++i) scatter(weight + i / 3 * p.stride.h + i % 3 * p.stride.w, p.stride.c, lanes, taps[i]);
  });
  return Status::kOk;
}

// body(a zero of the dtype, the side of a tile).
template <class Body> Status with_types(DType dtype, int m, const Body& body) {
  constexpr std::integral_constant<int, 2> two{};
  constexpr std::integral_constant<int, 4> four{};
  switch (dtype) {
    case DType::kFloat32: return m == 2 ? body(float{}, two) : body(float{}, four);
    case DType::kFloat64: return m == 2 ? body(double{}, two) : body(double{}, four);
    default: return Status::kBadArgument;
  }
}

template <class Body> Status on_image(const WinogradImage& p, const Body& body) {
  return p.tiles.valid() ? with_types(p.tiles.dtype, p.tiles.m, body) : Status::kBadArgument;
}

template <class Body> Status on_filter(const WinogradFilter& p, const Body& body) {
  const bool valid = p.outputs > 0 && p.inputs > 0 && (p.m == 2 || p.m == 4);
  return valid ? with_types(p.dtype, p.m, body) : Status::kBadArgument;
}

}  // namespace

Status winograd_input(const WinogradImage& p) {
  return on_image(p, [&](auto zero, auto m) { return input<decltype(zero), m.value>(p); });
}
Status winograd_input_adjoint(const WinogradImage& p) {
  return on_image(p, [&](auto zero, auto m) { return input_adjoint<decltype(zero), m.value>(p); });
}
Status winograd_output(const WinogradImage& p) {
  return on_image(p, [&](auto zero, auto m) { return output<decltype(zero), m.value>(p); });
}
Status winograd_output_adjoint(const WinogradImage& p) {
  return on_image(p, [&](auto zero, auto m) { return output_adjoint<decltype(zero), m.value>(p); });
}
Status winograd_filter(const WinogradFilter& p) {
  return on_filter(p, [&](auto zero, auto m) { return filter<decltype(zero), m.value>(p); });
}
Status winograd_filter_adjoint(const WinogradFilter& p) {
  return on_filter(p, [&](auto zero, auto m) { return filter_adjoint<decltype(zero), m.value>(p); });
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p

TORCHP2P_CPU_ENTRY(winograd_input, WinogradImage)
TORCHP2P_CPU_ENTRY(winograd_input_adjoint, WinogradImage)
TORCHP2P_CPU_ENTRY(winograd_output, WinogradImage)
TORCHP2P_CPU_ENTRY(winograd_output_adjoint, WinogradImage)
TORCHP2P_CPU_ENTRY(winograd_filter, WinogradFilter)
TORCHP2P_CPU_ENTRY(winograd_filter_adjoint, WinogradFilter)
