// From images to the frequencies of their tiles, and from sums of products to the image of results.
//
// A row of tiles is transformed at a time: its rows of pixels are first brought to registers of channels, as many
// channels of one pixel, so that pixels which tiles share are fetched once a row and the transforms are free of layout.
#pragma once

#include "torchp2p/winograd.h"
#include "winograd_matrices.h"
#include "winograd_pixels.h"

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

// Rows of pixels as registers of channels: the side of a tile x (pixels, lanes); and what load_pixels needs.
template <class A> struct Strip {
  A *pixels, *turned;

  static std::int64_t width(std::int64_t columns, int m) { return round_up(columns * m + 2, 4); }
  static std::int64_t size(int side, std::int64_t width) {
    return side * width * kLanes<A> + turned_size<A>(width);
  }
  Strip(A* memory, int side, std::int64_t width) : pixels(memory), turned(memory + side * width * kLanes<A>) {}
};

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

// Frequencies of the channels of register `v` in a row of tiles, whose first tile is the `tile`th of `to`.
// Matrix: InputOf<kM> for what the convolution reads, Transposed<OutputOf<kM>> for the gradient of its result.
template <class Product, class Matrix, int kM, Pairing kPairing, class T>
inline void transform_row(const Image<T>& image, std::int64_t sample, std::int64_t row, std::int64_t v,
                          std::int64_t columns, const Frequencies<Product>& to, std::int64_t tile,
                          const Strip<Accumulator<T>>& strip) {
  using A = Accumulator<T>;
  constexpr int kSide = Matrix::kFrom, kCount = Matrix::kTo * Matrix::kTo, kWidth = kPanel<A>;
  const std::int64_t width = Strip<A>::width(columns, kM);
  for (int i = 0; i < kSide; ++i) {
    load_row(image, sample, row * kM - image.pad + i, v * kLanes<A>, width, strip.pixels + i * width * kLanes<A>,
             strip.turned);
  }
  const std::int64_t lane = v % kPanelRegisters * kLanes<A>;
  for (std::int64_t column = 0; column < columns; column += 2, tile += 2) {
    Vec<A> found[2][kCount];
    for (int second = 0; second < 2; ++second) {
      Vec<A> pixels[kSide * kSide];
      const A* at = strip.pixels + (column + second) * kM * kLanes<A>;
      for (int i = 0; i < kSide; ++i) {
        for (int j = 0; j < kSide; ++j) pixels[i * kSide + j] = load(at + (i * width + j) * kLanes<A>);
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
inline void store_results(const Accumulator<T>* sums, std::int64_t tiles, std::int64_t tile, std::int64_t columns,
                          std::int64_t panel, const W* bias, const WinogradShape& shape, std::int64_t sample,
                          std::int64_t row, T* y, const Strides& stride, const Strip<Accumulator<T>>& strip) {
  using A = Accumulator<T>;
  constexpr int kCount = (kM + 2) * (kM + 2), kWidth = kPanel<A>;
  const std::int64_t width = Strip<A>::width(columns, kM);
  for (int lane = 0; lane < kWidth; lane += kLanes<A>) {
    const std::int64_t c = panel * kWidth + lane, channels = lanes_from<A>(c, shape.outputs);
    if (channels == 0) return;
    Vec<A> shift{};
    if (bias) shift = gather(bias + c, 1, channels);
    for (std::int64_t column = 0; column < columns; ++column) {
      Vec<A> values[kCount], found[kM * kM];
      for (int f = 0; f < kCount; ++f) values[f] = load(sums + (f * tiles + tile + column) * kWidth + lane);
      sandwich<OutputOf<kM>, A>(values, found);
      for (int i = 0; i < kM; ++i) {
        for (int j = 0; j < kM; ++j) {
          store(strip.pixels + (i * width + column * kM + j) * kLanes<A>, found[i * kM + j] + shift);
        }
      }
    }
    for (int i = 0; i < kM && row * kM + i < shape.out_height(); ++i) {
      T* at = y + sample * stride.n + c * stride.c + (row * kM + i) * stride.h;
      store_pixels(strip.pixels + i * width * kLanes<A>, shape.out_width(), at, stride.c, stride.w, channels,
                   strip.turned);
    }
  }
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
