// From images to the frequencies of their tiles, and from sums of products to the image of results.
//
// A row of tiles is transformed at a time: its rows of pixels are first brought to registers of channels, as many
// channels of one pixel, so that pixels which tiles share are fetched once a row and the transforms are free of layout.
#pragma once

#include "torchp2p/winograd.h"
#include "winograd_filter.h"
#include "winograd_matrices.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

// Tiles of kM x kM results, in rows of an even number: the second of a pair may lie beside the image.
template <int kM> struct TileGrid {
  std::int64_t rows, columns;  // of one sample

  explicit TileGrid(const WinogradShape& s)
      : rows((s.out_height() + kM - 1) / kM), columns(round_up((s.out_width() + kM - 1) / kM, 2)) {}
};

// An image of which tiles read kSide x kSide pixels, kM apart, the first of them `pad` pixels outside.
template <class T> struct Image {
  const T* values;
  Strides stride;
  std::int64_t channels, height, width, pad;
};

// An image that is written.
template <class T> struct ImageOut {
  T* values;
  Strides stride;
  std::int64_t channels, height, width, pad;
};

// Rows of pixels as registers of channels, `row` values apart; and what load_pixels needs.
template <class A> struct Strip {
  A *pixels, *turned;
  std::int64_t row;

  // Of a row: pixels, and values.
  static std::int64_t width(std::int64_t columns, int m) { return round_up(columns * m + 2, 4); }
  static std::int64_t row_size(std::int64_t columns, int m) { return width(columns, m) * kLanes<A>; }
};

template <class A, int kM> inline Strip<A> strip_of(A* memory, const TileGrid<kM>& grid) {
  const std::int64_t row = Strip<A>::row_size(grid.columns, kM);
  return {memory, memory + (kM + 2) * row, row};
}

// Of a thread, for a strip or for a square of filters.
template <class A, int kM> inline std::int64_t scratch_size(const TileGrid<kM>& grid) {
  const std::int64_t width = Strip<A>::width(grid.columns, kM);
  const std::int64_t strip = (kM + 2) * width * kLanes<A> + turned_size<A>(width);
  return strip > 2 * kSquare<A> ? strip : 2 * kSquare<A>;
}

template <class A> inline void clear(A* values, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) values[i] = 0;
}

// One row of pixels, of which the first is pixel -pad, as `width` registers of the channels from c on.
template <class T>
inline void load_row(const Image<T>& image, std::int64_t sample, std::int64_t row, std::int64_t c, std::int64_t width,
                     Accumulator<T>* to, Accumulator<T>* turned) {
  using A = Accumulator<T>;
  const std::int64_t first = image.pad > 0 ? image.pad : 0;
  std::int64_t end = image.width + image.pad < width ? image.width + image.pad : width;
  if (row < 0 || row >= image.height || end < first) end = first;
  const Strides& s = image.stride;
  if (end > first) {
    load_pixels(image.values + sample * s.n + c * s.c + row * s.h + (first - image.pad) * s.w, s.c, s.w,
                lanes_from<A>(c, image.channels), end - first, to + first * kLanes<A>, turned);
  }
  const std::int64_t left = first < width ? first : width;
  clear(to, left * kLanes<A>);
  clear(to + end * kLanes<A>, (width - end) * kLanes<A>);
}

// One row of pixels of the register of channels from c on, if it is there; `from` is its first pixel.
template <class T>
inline void store_row(const Accumulator<T>* from, const ImageOut<T>& image, std::int64_t sample, std::int64_t row,
                      std::int64_t c, Accumulator<T>* turned) {
  if (row < 0 || row >= image.height) return;
  const Strides& s = image.stride;
  store_pixels(from, image.width, image.values + sample * s.n + c * s.c + row * s.h, s.c, s.w,
               lanes_from<Accumulator<T>>(c, image.channels), turned);
}

// Frequencies of the channels of register `v` in a row of tiles, whose first tile is the `tile`th of `to`.
// Matrix: InputOf<kM> for what the convolution reads, Transposed<OutputOf<kM>> for the gradient of its result.
template <class Product, class Matrix, int kM, Pairing kPairing, class T>
inline void transform_row(const Image<T>& image, std::int64_t sample, std::int64_t row, std::int64_t v,
                          std::int64_t columns, const Frequencies<Product>& to, std::int64_t tile,
                          const Strip<Accumulator<T>>& strip) {
  using A = Accumulator<T>;
  constexpr int kSide = Matrix::kFrom, kCount = Matrix::kTo * Matrix::kTo, kWidth = kPanel<A>;
  for (int i = 0; i < kSide; ++i) {
    load_row(image, sample, row * kM - image.pad + i, v * kLanes<A>, strip.row / kLanes<A>,
             strip.pixels + i * strip.row, strip.turned);
  }
  const std::int64_t lane = v % kPanelRegisters * kLanes<A>;
  for (std::int64_t column = 0; column < columns; column += 2, tile += 2) {
    Vec<A> found[2][kCount];
    for (int second = 0; second < 2; ++second) {
      Vec<A> pixels[kSide * kSide];
      const A* at = strip.pixels + (column + second) * kM * kLanes<A>;
      for (int i = 0; i < kSide; ++i) {
        for (int j = 0; j < kSide; ++j) pixels[i * kSide + j] = load(at + i * strip.row + j * kLanes<A>);
      }
      sandwich<Matrix, A>(pixels, found[second]);
    }
    for (int f = 0; f < kCount; ++f) {
      typename Product::Unit* at = to.panel(f, v / kPanelRegisters) + tile * kWidth / Product::kPack;
      if constexpr (kPairing == Pairing::kTiles) {
        Product::store_two(at + lane, kWidth, found[0][f], found[1][f]);
      } else {
        Product::store_channels(at + lane / Product::kPack, found[0][f]);
        Product::store_channels(at + (kWidth + lane) / Product::kPack, found[1][f]);
      }
    }
  }
}

// A row of results of one panel of channels, from the sums (F, tiles, W) of the products, plus the bias.
template <int kM, class T, class W>
inline void store_results(const Accumulator<T>* sums, std::int64_t tiles, std::int64_t tile, std::int64_t panel,
                          const W* bias, const ImageOut<T>& y, std::int64_t sample, std::int64_t row,
                          const Strip<Accumulator<T>>& strip) {
  using A = Accumulator<T>;
  constexpr int kCount = (kM + 2) * (kM + 2), kWidth = kPanel<A>;
  for (int lane = 0; lane < kWidth; lane += kLanes<A>) {
    const std::int64_t c = panel * kWidth + lane, channels = lanes_from<A>(c, y.channels);
    Vec<A> shift{};
    if (bias) shift = gather(bias + c, 1, channels);
    const A* from = sums + tile * kWidth + lane;
    for (A* to = strip.pixels; to < strip.pixels + y.width * kLanes<A>; to += kM * kLanes<A>, from += kWidth) {
      Vec<A> values[kCount], found[kM * kM];
      for (int f = 0; f < kCount; ++f) values[f] = load(from + f * tiles * kWidth);
      sandwich<OutputOf<kM>, A>(values, found);
      for (int i = 0; i < kM; ++i) {
        for (int j = 0; j < kM; ++j) store(to + i * strip.row + j * kLanes<A>, found[i * kM + j] + shift);
      }
    }
    for (int i = 0; i < kM; ++i) store_row(strip.pixels + i * strip.row, y, sample, row * kM + i, c, strip.turned);
  }
}

// What a row of tiles adds to the gradient of the input, for the register of channels from c on. The last two rows of
// pixels are left `unfinished` for the next row of tiles, unless there is none.
template <int kM, class T>
inline void add_tiles(const Accumulator<T>* sums, std::int64_t tiles, std::int64_t tile, std::int64_t c,
                      const TileGrid<kM>& grid, const ImageOut<T>& grad_x, std::int64_t sample, std::int64_t row,
                      Accumulator<T>* unfinished, const Strip<Accumulator<T>>& strip) {
  using A = Accumulator<T>;
  constexpr int kSide = kM + 2, kCount = kSide * kSide, kWidth = kPanel<A>;
  if (row == 0) clear(unfinished, 2 * strip.row);
  std::memcpy(strip.pixels, unfinished, 2 * strip.row * sizeof(A));
  clear(strip.pixels + 2 * strip.row, kM * strip.row);
  for (std::int64_t column = 0; column < grid.columns; ++column) {
    Vec<A> values[kCount], found[kCount];
    const A* from = sums + (tile + column) * kWidth;
    for (int f = 0; f < kCount; ++f) values[f] = load(from + f * tiles * kWidth);
    sandwich<Transposed<InputOf<kM>>, A>(values, found);
    A* to = strip.pixels + column * kM * kLanes<A>;
    for (int i = 0; i < kSide; ++i) {
      for (int j = 0; j < kSide; ++j) {
        A* sum = to + i * strip.row + j * kLanes<A>;
        store(sum, load(sum) + found[i * kSide + j]);
      }
    }
  }
  const int finished = row + 1 == grid.rows ? kSide : kM;
  for (int i = 0; i < finished; ++i) {
    const std::int64_t skipped = grad_x.pad > 0 ? grad_x.pad : 0;
    store_row(strip.pixels + i * strip.row + skipped * kLanes<A>, grad_x, sample, row * kM - grad_x.pad + i, c,
              strip.turned);
  }
  std::memcpy(unfinished, strip.pixels + kM * strip.row, 2 * strip.row * sizeof(A));
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
