// The blocks of Winograd's convolution: an image to frequencies, times filters, summed over channels, panel by panel.
// The forward pass and the gradient of the input are both that, with other images, filters and transforms.
//
// What lies between two images stays in the cache: frequencies of a chunk of tiles in that which threads share, those
// of a block of filters and a panel of sums in a thread's own. The frequencies of the whole weight, up to 46 / 9 of its
// size, are never in memory.
#pragma once

#include "buffer.h"
#include "parallel.h"
#include "torchp2p/status.h"
#include "winograd_filter.h"
#include "winograd_gemm.h"
#include "winograd_image.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

// Tiles that are multiplied together, if a row has not more; and terms that are summed before the next filters are
// transformed: a panel's filters and sums then share the second-level cache.
template <class F> constexpr std::int64_t kChunkTiles = F::kComplex ? 128 : 288;
template <class F> constexpr std::int64_t kTermsDepth = F::kComplex ? 64 : 128;

// Whose parts are they: of what is summed over, as in a convolution, or of the results, as in its adjoint.
enum class Parts { kOfTerms, kOfResults };

// T and W: of images and filters. Of: see transform_row.
template <class T, class W, class Of, Parts kWhose> class PanelProduct {
  using F = typename Of::F;
  using Product = typename ProductOf<T>::type;
  using A = Accumulator<T>;
  using Unit = typename Product::Unit;
  static constexpr int kWidth = kPanel<A>, kCount = F::kFrequencies;
  static constexpr int kTermParts = kWhose == Parts::kOfTerms ? F::kParts : 1, kResultParts = F::kParts / kTermParts;

 public:
  PanelProduct(std::int64_t samples, const TileGrid<F>& grid, const Image<const T>& image,
               const Filters<const W>& filters)
      : image_(image), weight_(filters), grid_(grid), rows_(samples * grid_.rows),
        chunk_(rows_of_chunk(rows_, kChunkTiles<F> / grid_.columns)), tiles_(round_up(chunk_ * grid_.columns, kRows)),
        terms_((filters.terms + kWidth - 1) / kWidth * kTermParts),
        panels_((filters.lanes + kWidth - 1) / kWidth * kResultParts),
        threads_(thread_count(rows_ * grid_.columns * kCount * filters.lanes)),
        frequencies_(1, kCount * terms_ * tiles_ * kWidth / Product::kPack), filters_(threads_, kCount * kBlockUnits),
        sums_(threads_, kCount * tiles_ * kWidth), scratch_(threads_, scratch_size<A>(grid_)) {}

  // sink(sums (F, tiles, W), tiles, panel, sample, row of tiles, its first tile, strip) for every row of tiles of a
  // panel, from top to bottom.
  template <class Sink> Status run(const Sink& sink) const {
    if (!frequencies_.ok() || !filters_.ok() || !sums_.ok() || !scratch_.ok()) return Status::kOutOfMemory;
    for (std::int64_t first = 0; first < rows_; first += chunk_) {
      const std::int64_t rows = rows_ - first < chunk_ ? rows_ - first : chunk_;
      transform_rows<Product, Of, Pairing::kChannels, kTermParts>(image_, grid_, first, rows, frequencies(), threads_,
                                                                  scratch_);
      parallel_for(panels_, threads_, [&](std::int64_t panel, int thread) {
        A* sums = sums_.piece(thread);
        multiply(panel, sums, thread);
        for (std::int64_t i = 0; i < rows; ++i) {
          const std::int64_t row = first + i;
          sink(sums, tiles_, panel, row / grid_.rows, row % grid_.rows, i * grid_.columns,
               strip_of<A>(scratch_.piece(thread), grid_));
        }
      });
    }
    return Status::kOk;
  }

 private:
  // Of a frequency of a block of filters, and more, lest all frequencies of a filter fall into one set of the cache.
  static constexpr std::int64_t kBlockUnits = kTermsDepth<F> / Product::kPack * kWidth + kWidth;
  static constexpr std::int64_t kBlockPanels = kTermsDepth<F> / kWidth;
  // Panels that are summed before sums are added to those before: of parts an even one and the odd one beside it, which
  // is not summed where it has no taps.
  static constexpr std::int64_t kChain = kTermParts == 1 ? kBlockPanels : 2;
  static_assert(kBlockPanels % kTermParts == 0, "a block holds all parts of a panel");

  Frequencies<Product, kCount> frequencies() const { return {frequencies_.piece(0), terms_, tiles_}; }

  // sums (F, tiles, W) of one panel.
  void multiply(std::int64_t panel, A* sums, int thread) const {
    const int part = static_cast<int>(panel % kResultParts);
    for (std::int64_t from = 0; from < terms_; from += kBlockPanels) {
      const std::int64_t panels = terms_ - from < kBlockPanels ? terms_ - from : kBlockPanels;
      transform_filters<Product, F, kBlockUnits>(weight_, panel / kResultParts, from / kTermParts, panels / kTermParts,
                                                 part, kTermParts, filters_.piece(thread), scratch_.piece(thread));
      auto ahead = filters_after(panel, from + kBlockPanels);
      for (int f = 0; f < kCount; ++f) {
        if (!reaches<F>(part, f)) {
          clear(sums + f * tiles_ * kWidth, tiles_ * kWidth);
          continue;
        }
        for (std::int64_t first = 0; first < panels; first += kChain) {
          const std::int64_t count = chain(f, first, panels);
          if (count > 0) multiply_chain(f, from, first, count, sums, ahead, thread);
        }
      }
    }
  }

  // How many panels of a block are summed together from the `first` on.
  static std::int64_t chain(int frequency, std::int64_t first, std::int64_t panels) {
    if (kTermParts == 1) return panels - first < kChain ? panels - first : kChain;
    const int part = static_cast<int>(first % kTermParts);
    return reaches<F>(part, frequency) + reaches<F>(part + 1, frequency);
  }

  // Those that are transformed after a block of filters: in the next block of the panel, or the next panel.
  FiltersAhead<F, const W> filters_after(std::int64_t panel, std::int64_t from) const {
    if (from >= terms_) {
      from = 0;
      panel += kResultParts - panel % kResultParts;
    }
    return {weight_,
            panel / kResultParts * kWidth,
            kWidth,
            from / kTermParts * kWidth,
            kTermsDepth<F> / kTermParts,
            kCount * tiles_ / kRows};
  }

  // sums of frequency f (tiles, W), of `panels` panels from the `first` of the block on.
  void multiply_chain(int f, std::int64_t block, std::int64_t first, std::int64_t panels, A* sums,
                      FiltersAhead<F, const W>& ahead, int thread) const {
    const Unit* of_image = frequencies().at(block + first, f);
    const Unit* of_filters = filters_.piece(thread) + f * kBlockUnits + first * kWidth / Product::kPack * kWidth;
    for (std::int64_t tile = 0; tile < tiles_; tile += kRows) {
      ahead.bring_share();
      multiply_block<Product, kWidth / Product::kPack, 1>(
          of_image + tile * kWidth / Product::kPack, frequencies().panel_units(), panels, kWidth / Product::kPack,
          of_filters, sums + (f * tiles_ + tile) * kWidth, block + first > 0);
    }
  }

  const Image<const T> image_;
  const Filters<const W> weight_;
  const TileGrid<F> grid_;
  std::int64_t rows_, chunk_, tiles_;  // rows of tiles of all samples, and those of a chunk with its tiles
  std::int64_t terms_, panels_;        // panels that are summed over, and panels of sums
  int threads_;
  Buffer<Unit> frequencies_, filters_;
  Buffer<A> sums_, scratch_;
};

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
