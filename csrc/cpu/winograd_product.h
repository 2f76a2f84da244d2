// The blocks of Winograd's convolution: an image to frequencies, times filters, summed over channels, panel by panel.
// The forward pass and the gradient of the input are both that, with other images, filters and transforms.
//
// What lies between two images stays in the cache: frequencies of a chunk of tiles in that which threads share, those
// of a block of filters and a panel of sums in a thread's own. The frequencies of the whole weight, 16 / 9 of its size
// and more, are never in memory.
#pragma once

#include "buffer.h"
#include "parallel.h"
#include "winograd_filter.h"
#include "winograd_gemm.h"
#include "winograd_image.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

// Tiles that are multiplied together, if a row has not more; and terms that are summed before the next filters are
// transformed: a panel's filters and sums then share the second-level cache.
constexpr std::int64_t kChunkTiles = 256, kTermsDepth = 128;

// Matrix: see transform_row. T and W: of images and filters.
template <class T, class W, int kM, class Matrix> class PanelProduct {
  using Product = typename ProductOf<T>::type;
  using A = Accumulator<T>;
  using Unit = typename Product::Unit;
  static constexpr int kWidth = kPanel<A>, kCount = (kM + 2) * (kM + 2);

 public:
  PanelProduct(const WinogradShape& shape, const Image<T>& image, const Filters<const W>& filters)
      : image_(image), weight_(filters), grid_(shape), rows_(shape.samples * grid_.rows),
        chunk_(grid_.columns < kChunkTiles ? kChunkTiles / grid_.columns : 1),
        tiles_(round_up((chunk_ < rows_ ? chunk_ : rows_) * grid_.columns, kRows)),
        terms_((filters.terms + kWidth - 1) / kWidth), panels_((filters.lanes + kWidth - 1) / kWidth),
        threads_(thread_count(shape.samples * shape.height * shape.width * filters.lanes)),
        frequencies_(1, kCount * terms_ * tiles_ * kWidth / Product::kPack), filters_(threads_, kCount * kBlockUnits),
        sums_(threads_, kCount * tiles_ * kWidth), scratch_(threads_, scratch_size<A, kM>(grid_)) {}

  // sink(sums (F, tiles, W), tiles, panel, sample, row of tiles, its first tile, strip) for every row of tiles of a
  // panel, from top to bottom.
  template <class Sink> Status run(const Sink& sink) const {
    if (!frequencies_.ok() || !filters_.ok() || !sums_.ok() || !scratch_.ok()) return Status::kOutOfMemory;
    for (std::int64_t first = 0; first < rows_; first += chunk_) {
      const std::int64_t rows = rows_ - first < chunk_ ? rows_ - first : chunk_;
      transform_image(first, rows);
      parallel_for(panels_, threads_, [&](std::int64_t panel, int thread) {
        A* sums = sums_.piece(thread);
        multiply(panel, sums, thread);
        for (std::int64_t i = 0; i < rows; ++i) {
          const std::int64_t row = first + i;
          sink(sums, tiles_, panel, row / grid_.rows, row % grid_.rows, i * grid_.columns, strip(thread));
        }
      });
    }
    return Status::kOk;
  }

 private:
  static constexpr std::int64_t kBlockUnits = kTermsDepth / Product::kPack * kWidth;

  Frequencies<Product> frequencies() const { return {frequencies_.piece(0), terms_, tiles_}; }
  Strip<A> strip(int thread) const { return strip_of<A, kM>(scratch_.piece(thread), grid_); }

  void transform_image(std::int64_t first, std::int64_t rows) const {
    const std::int64_t registers = terms_ * kPanelRegisters;
    parallel_for(rows * registers, threads_, [&](std::int64_t item, int thread) {
      const std::int64_t i = item / registers, row = first + i;
      transform_row<Product, Matrix, kM, Pairing::kChannels>(image_, row / grid_.rows, row % grid_.rows,
                                                             item % registers, grid_.columns, frequencies(),
                                                             i * grid_.columns, strip(thread));
    });
    clear_tiles(frequencies(), rows * grid_.columns, kCount);
  }

  // sums (F, tiles, W) of one panel.
  void multiply(std::int64_t panel, A* sums, int thread) const {
    Unit* filters = filters_.piece(thread);
    constexpr std::int64_t kBlockPanels = kTermsDepth / kWidth;
    for (std::int64_t from = 0; from < terms_; from += kBlockPanels) {
      const std::int64_t panels = terms_ - from < kBlockPanels ? terms_ - from : kBlockPanels;
      transform_filters<Product, kM>(weight_, panel, from * kWidth, panels * kWidth, filters, kBlockUnits,
                                     scratch_.piece(thread));
      for (int f = 0; f < kCount; ++f) {
        const Unit* of_image = frequencies().panel(f, from);
        for (std::int64_t tile = 0; tile < tiles_; tile += kRows) {
          multiply_block<Product, kWidth / Product::kPack, 1>(
              of_image + tile * kWidth / Product::kPack, frequencies().panel_units(), panels, kWidth / Product::kPack,
              filters + f * kBlockUnits, sums + (f * tiles_ + tile) * kWidth, from > 0);
        }
      }
    }
  }

  const Image<T> image_;
  const Filters<const W> weight_;
  const TileGrid<kM> grid_;
  std::int64_t rows_, chunk_, tiles_;  // rows of tiles of all samples, and those of a chunk with its tiles
  std::int64_t terms_, panels_;        // panels that are summed over, and panels of sums
  int threads_;
  Buffer<Unit> frequencies_, filters_;
  Buffer<A> sums_, scratch_;
};

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
