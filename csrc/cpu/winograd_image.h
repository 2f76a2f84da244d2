// From images to the frequencies of their tiles, and from sums of products to the image of results.
//
// A row of tiles is transformed at a time: its rows of pixels are first brought to registers of channels, as many
// channels of one pixel, so that pixels which tiles share are fetched once a row and the transforms are free of layout.
#pragma once

#include "parallel.h"
#include "torchp2p/strides.h"
#include "winograd_filter.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

// Tiles of results, in rows of an even number: the second of a pair may lie beside the image.
template <class F> struct TileGrid {
  std::int64_t rows, columns;  // of one sample

  TileGrid(std::int64_t height, std::int64_t width)
      : rows((height + F::kM - 1) / F::kM), columns(round_up((width + F::kM - 1) / F::kM, 2)) {}
};

// Rows of tiles that are taken together, where `most` can be: chunks of about the same size.
inline std::int64_t rows_of_chunk(std::int64_t rows, std::int64_t most) {
  const std::int64_t chunks = most > 1 ? (rows + most - 1) / most : rows;
  return (rows + chunks - 1) / chunks;
}

// An image that is read or written. Tiles of kSide x kSide pixels cover it, kM apart, of which the first begins `top`
// pixels above and `left` pixels beside it.
template <class T> struct Image {
  T* values;
  Strides stride;
  std::int64_t channels, height, width, top, left;
};

// What a part of the kernel reads of an image, as an image of its own.
template <class F, class T> inline Image<T> part_of(Image<T> image, int part) {
  constexpr int kStride = F::kStride;
  const auto take = [&](int odd, std::int64_t& size, std::int64_t& around, std::int64_t& step) {
    const std::int64_t outside = around - odd;                           // pixels, from where the part begins
    const std::int64_t first = (kStride - outside % kStride) % kStride;  // of those that are taken, in the image
    image.values += first * step;
    size = (size - first + kStride - 1) / kStride;
    around = (outside + first) / kStride;
    step *= kStride;
  };
  take(part / 2, image.height, image.top, image.stride.h);
  take(part % 2, image.width, image.left, image.stride.w);
  return image;
}

// Rows of pixels as registers of channels, `row` values apart; and what load_pixels needs.
template <class A> struct Strip {
  A *pixels, *turned;
  std::int64_t row;

  // Values of a row that holds so many tiles.
  template <class F> static std::int64_t row_size(std::int64_t columns) {
    return round_up(columns * F::kStep + F::kOverlap, 4) * kLanes<A>;
  }
};

template <class A, class F> inline Strip<A> strip_of(A* memory, const TileGrid<F>& grid) {
  const std::int64_t row = Strip<A>::template row_size<F>(grid.columns);
  return {memory, memory + F::kSide * row, row};
}

// Of a thread, for a strip or for a square of filters.
template <class A, class F> inline std::int64_t scratch_size(const TileGrid<F>& grid) {
  const std::int64_t row = Strip<A>::template row_size<F>(grid.columns);
  const std::int64_t strip = F::kSide * row + turned_size<A>(row / kLanes<A>);
  return strip > 2 * kSquare<F, A> ? strip : 2 * kSquare<F, A>;
}

template <class A> inline void clear(A* values, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) values[i] = 0;
}

// One row of pixels, of which the first lies `left` beside the image, as `width` registers of the channels from c on.
template <class T>
inline void load_row(const Image<const T>& image, std::int64_t sample, std::int64_t row, std::int64_t c,
                     std::int64_t width, Accumulator<T>* to, Accumulator<T>* turned) {
  using A = Accumulator<T>;
  const std::int64_t first = image.left > 0 ? image.left : 0;
  std::int64_t end = image.width + image.left < width ? image.width + image.left : width;
  if (row < 0 || row >= image.height || end < first) end = first;
  const Strides& s = image.stride;
  if (end > first) {
    load_pixels(image.values + sample * s.n + c * s.c + row * s.h + (first - image.left) * s.w, s.c, s.w,
                lanes_from<A>(c, image.channels), end - first, to + first * kLanes<A>, turned);
  }
  const std::int64_t before = first < width ? first : width;
  clear(to, before * kLanes<A>);
  clear(to + end * kLanes<A>, (width - end) * kLanes<A>);
}

// One row of pixels of the register of channels from c on, if it is there; `from` is its first pixel.
template <class T>
inline void store_row(const Accumulator<T>* from, const Image<T>& image, std::int64_t sample, std::int64_t row,
                      std::int64_t c, Accumulator<T>* turned) {
  if (row < 0 || row >= image.height) return;
  const Strides& s = image.stride;
  store_pixels(from, image.width, image.values + sample * s.n + c * s.c + row * s.h, s.c, s.w,
               lanes_from<Accumulator<T>>(c, image.channels), turned);
}

// A column of pixels in a strip becomes one of remainders; and the adjoint.
template <class Of, class A> [[gnu::flatten]] inline void evaluate_column(A* column, std::int64_t row) {
  if constexpr (!Of::F::kDirect) {
    Vec<A> from[Of::kSize], to[Of::F::kRemainders];
    each<Of::kSize>([&](auto i) { from[i] = load(column + i * row); });
    evaluate<Of, A>(from, to);
    each<Of::F::kRemainders>([&](auto i) { store(column + i * row, to[i]); });
  }
}
template <class Of, class A> [[gnu::flatten]] inline void evaluate_column_back(A* column, std::int64_t row) {
  Vec<A> from[Of::F::kRemainders], to[Of::kSize];
  each<Of::F::kRemainders>([&](auto i) { from[i] = load(column + i * row); });
  evaluate_back<Of, A>(from, to);
  each<Of::kSize>([&](auto i) { store(column + i * row, to[i]); });
}

// Frequencies of the channels from c on in a row of tiles, to register `v` of a panel, from its `tile`th tile on.
// Of: InputOf<F> for what the convolution reads, OutputOf<F> for the gradient of its result.
template <class Product, class Of, Pairing kPairing, class T>
inline void transform_row(const Image<const T>& image, std::int64_t sample, std::int64_t row, std::int64_t c,
                          std::int64_t columns, const Frequencies<Product, Of::kFrequencies>& to, std::int64_t panel,
                          int v, std::int64_t tile, const Strip<Accumulator<T>>& strip) {
  using A = Accumulator<T>;
  constexpr int kWidth = kPanel<A>;
  for (int i = 0; i < Of::kSize; ++i) {
    load_row(image, sample, row * Of::kStep - image.top + i, c, strip.row / kLanes<A>, strip.pixels + i * strip.row,
             strip.turned);
  }
  std::int64_t evaluated = 0;  // pixels of which the column is remainders: tiles share it
  const auto rows_of = [&](std::int64_t column) {
    for (; evaluated < column * Of::kStep + Of::kSize; ++evaluated) {
      evaluate_column<Of>(strip.pixels + evaluated * kLanes<A>, strip.row);
    }
    return [&, at = strip.pixels + column * Of::kStep * kLanes<A>](int i, Vec<A>* values) {
      each<Of::kSize>([&](auto j) { values[j] = load(at + i * strip.row + j * kLanes<A>); });
    };
  };
  const std::int64_t lane = v * kLanes<A>, next_frequency = to.frequency_units();
  for (std::int64_t column = 0; column < columns; column += 2, tile += 2) {
    typename Product::Unit* at = to.at(panel, 0) + tile * kWidth / Product::kPack;
    if constexpr (kPairing == Pairing::kTiles || Product::kPack == 1) {
      spread_two<Product, Of>([&](int second) { return rows_of(column + second); }, at + lane, next_frequency);
    } else {
      at += lane / Product::kPack;
      for (int second = 0; second < 2; ++second, at += kWidth / Product::kPack) {
        spread<Of, A>(rows_of(column + second),
                      [&](int f, Vec<A> values) { Product::store_channels(at + f * next_frequency, values); });
      }
    }
  }
}

// Frequencies of `rows` rows of tiles of all samples, from the `first` on: of each panel of channels its kParts parts,
// one panel each.
template <class Product, class Of, Pairing kPairing, int kParts, class T, class Scratch>
inline void transform_rows(const Image<const T>& image, const TileGrid<typename Of::F>& grid, std::int64_t first,
                           std::int64_t rows, const Frequencies<Product, Of::kFrequencies>& to, int threads,
                           const Scratch& scratch) {
  using A = Accumulator<T>;
  const std::int64_t registers = to.panels * kPanelRegisters;
  parallel_for(rows * registers, threads, [&](std::int64_t item, int thread) {
    const std::int64_t i = item / registers, row = first + i, panel = item % registers / kPanelRegisters;
    const int v = static_cast<int>(item % kPanelRegisters);
    const Image<const T> part = kParts == 1 ? image : part_of<typename Of::F>(image, static_cast<int>(panel % kParts));
    transform_row<Product, Of, kPairing>(part, row / grid.rows, row % grid.rows,
                                         panel / kParts * kPanel<A> + v * kLanes<A>, grid.columns, to, panel, v,
                                         i * grid.columns, strip_of<A>(scratch.piece(thread), grid));
  });
  clear_tiles(to, rows * grid.columns);
}

// A row of results of one panel of channels, from the sums (F, tiles, W) of the products, plus the bias.
template <class F, class T, class W>
inline void store_results(const Accumulator<T>* sums, std::int64_t tiles, std::int64_t tile, std::int64_t panel,
                          const W* bias, const Image<T>& y, std::int64_t sample, std::int64_t row,
                          const Strip<Accumulator<T>>& strip) {
  using A = Accumulator<T>;
  constexpr int kM = F::kM, kWidth = kPanel<A>;
  for (int lane = 0; lane < kWidth; lane += kLanes<A>) {
    const std::int64_t c = panel * kWidth + lane, channels = lanes_from<A>(c, y.channels);
    Vec<A> shift{};
    if (bias) shift = gather(bias + c, 1, channels);
    const A* from = sums + tile * kWidth + lane;
    for (A* to = strip.pixels; to < strip.pixels + y.width * kLanes<A>; to += kM * kLanes<A>, from += kWidth) {
      gather_tile<OutputOf<F>>(from, tiles * kWidth, [&](int i, int j, Vec<A> value) {
        store(to + i * strip.row + j * kLanes<A>, value + shift);
      });
    }
    for (int i = 0; i < kM; ++i) store_row(strip.pixels + i * strip.row, y, sample, row * kM + i, c, strip.turned);
  }
}

// What a row of tiles adds to the gradient of the input, for the register of channels from c on. The last rows of
// pixels are left `unfinished` for the next row of tiles, unless there is none.
template <class F, class T>
inline void add_tiles(const Accumulator<T>* sums, std::int64_t tiles, std::int64_t tile, std::int64_t c,
                      const TileGrid<F>& grid, const Image<T>& grad_x, std::int64_t sample, std::int64_t row,
                      Accumulator<T>* unfinished, const Strip<Accumulator<T>>& strip) {
  using A = Accumulator<T>;
  constexpr int kM = F::kM, kSide = F::kSide, kOverlap = F::kOverlap, kWidth = kPanel<A>;
  if (row == 0) clear(unfinished, kOverlap * strip.row);
  for (int i = 0; i < F::kRemainders; ++i) clear(strip.pixels + i * strip.row, kOverlap * kLanes<A>);
  const auto finish = [&](std::int64_t from, std::int64_t end) {
    for (std::int64_t j = from * kLanes<A>; j < end * kLanes<A>; j += kLanes<A>) {
      evaluate_column_back<InputOf<F>>(strip.pixels + j, strip.row);
      each<kOverlap>([&](auto i) {
        A* sum = strip.pixels + i * strip.row + j;
        store(sum, load(sum) + load(unfinished + i * strip.row + j));
      });
    }
  };
  for (std::int64_t column = 0; column < grid.columns; ++column) {
    const A* from = sums + (tile + column) * kWidth;
    A* to = strip.pixels + column * kM * kLanes<A>;
    gather_rows<InputOf<F>, A>([&](int f) { return load(from + f * tiles * kWidth); },
                               [&](int i, const Vec<A>* values) {
      each<kSide>([&](auto j) {
        A* sum = to + i * strip.row + j * kLanes<A>;
        store(sum, j < kOverlap ? load(sum) + values[j] : values[j]);
      });
    });
    finish(column * kM, (column + 1) * kM);
  }
  finish(grid.columns * kM, grid.columns * kM + kOverlap);
  const int finished = row + 1 == grid.rows ? kSide : kM;
  for (int i = 0; i < finished; ++i) {
    store_row(strip.pixels + i * strip.row + grad_x.left * kLanes<A>, grad_x, sample, row * kM - grad_x.top + i, c,
              strip.turned);
  }
  std::memcpy(unfinished, strip.pixels + kM * strip.row, kOverlap * strip.row * sizeof(A));
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
