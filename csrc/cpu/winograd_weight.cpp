// The gradient of the weight of Winograd's convolution; in pairs of bfloat16 numbers, of some kernels without tiles.
//
// Memory:   x and the gradient of the result once, their frequencies written once and read from the cache that threads
//           share; the weight's gradient written once. The frequencies of that gradient stay in a thread's own cache.
// Parallel: rows of tiles x registers of channels while the images are transformed; then panels of output channels,
//           each of which sums over all tiles, frequency by frequency, and transforms its sums back.
#include <type_traits>

#include "buffer.h"
#include "isa.h"
#include "parallel.h"
#include "winograd_filter.h"
#include "winograd_gemm.h"
#include "winograd_image.h"
#include "winograd_types.h"

namespace torchp2p {
namespace TORCHP2P_ISA {
namespace {

// Terms that are summed before the next rows of the product are taken: half a first-level cache for both images, so
// that what comes next finds room.
constexpr std::int64_t kDepth = 64;

// Units of the cache that threads share which frequencies may take.
constexpr std::int64_t kSharedCache = 4 << 20;

// Where frequencies are rounded to be multiplied, as in pairs, the gradient has errors of that size, while those of a
// direct convolution are of its result alone. Tiles of 4 x 4 results keep it to about twice that; others are not taken.
template <class T, class F>
using Exact = std::conditional_t<ProductOf<T>::type::kPack == 1 || std::is_same_v<F, Scheme<4, 3, 3>>, F,
                                 Direct<F::kKernel, F::kParts == 1 ? 1 : 2>>;

template <class T, class W, class F> class WeightGradient {
  using Product = typename ProductOf<T>::type;
  using A = Accumulator<T>;
  using Unit = typename Product::Unit;
  static constexpr int kWidth = kPanel<A>, kCount = F::kFrequencies, kOutputFrequencies = F::kOutputFrequencies;

 public:
  explicit WeightGradient(const WinogradWeight& p)
      : p_(p), s_(p.shape), grid_(s_.out_height(), s_.out_width()), rows_(s_.samples * grid_.rows),
        input_panels_((s_.inputs + kWidth - 1) / kWidth * F::kParts),
        output_panels_((s_.outputs + kWidth - 1) / kWidth), chunk_(rows_of_chunk(rows_, rows_that_fit())),
        tiles_(round_up(chunk_ * grid_.columns, kRows)), block_(chunk_ < rows_ ? input_panels_ : F::kParts),
        threads_(thread_count(s_.outputs * s_.inputs * kTapsOfKernel<F>)),
        of_input_(1, kCount * input_panels_ * tiles_ * kWidth / Product::kPack),
        of_grad_(1, kOutputFrequencies * output_panels_ * tiles_ * kWidth / Product::kPack),
        sums_(chunk_ < rows_ ? output_panels_ : threads_, kCount * next_frequency()),
        scratch_(threads_, scratch_size<A>(grid_)) {}

  Status run() const {
    if (!of_input_.ok() || !of_grad_.ok() || !sums_.ok() || !scratch_.ok()) return Status::kOutOfMemory;
    const Image<const T> x{static_cast<const T*>(p_.x), p_.x_stride, s_.inputs, s_.height, s_.width, s_.pad, s_.pad};
    const Image<const T> grad{
        static_cast<const T*>(p_.grad), p_.grad_stride, s_.outputs, s_.out_height(), s_.out_width(), 0, 0};
    const Strides& s = p_.weight_stride;
    const Filters<W> weight{static_cast<W*>(p_.grad_weight), s_.outputs, s_.inputs, s.n, s.c, s.h, s.w};
    for (std::int64_t first = 0; first < rows_; first += chunk_) {
      const std::int64_t rows = rows_ - first < chunk_ ? rows_ - first : chunk_;
      transform_rows<Product, InputOf<F>, Pairing::kTiles, F::kParts>(x, grid_, first, rows, input(), threads_,
                                                                      scratch_);
      transform_rows<Product, OutputOf<F>, Pairing::kTiles, 1>(grad, grid_, first, rows, this->grad(), threads_,
                                                               scratch_);
      parallel_for(output_panels_, threads_, [&](std::int64_t panel, int thread) {
        A* sums = sums_.piece(chunk_ < rows_ ? panel : thread);
        for (std::int64_t from = 0; from < input_panels_; from += block_) {
          const bool last = first + rows == rows_;
          FiltersAhead<F, W> result(weight, panel * kWidth, kWidth, from / F::kParts * kWidth,
                                    last ? block_ / F::kParts * kWidth : 0, block_ * kCount * (kWidth / kRows));
          multiply(panel, from, first > 0, sums, result);
          if (!last) continue;
          store_filter_gradient<F>(sums, next_frequency(), weight, panel, from / F::kParts, block_ / F::kParts,
                                   scratch_.piece(thread));
        }
      });
    }
    return Status::kOk;
  }

 private:
  Frequencies<Product, kCount> input() const { return {of_input_.piece(0), input_panels_, tiles_}; }
  Frequencies<Product, kOutputFrequencies> grad() const { return {of_grad_.piece(0), output_panels_, tiles_}; }
  std::int64_t next_frequency() const { return block_ * kWidth * kWidth + kWidth; }

  // Rows of tiles whose frequencies fit the cache that threads share, unless the sums, which outlast them, do not
  // either: then frequencies may take as much memory.
  std::int64_t rows_that_fit() const {
    const std::int64_t of_row =
        (kCount * input_panels_ + kOutputFrequencies * output_panels_) * grid_.columns * kWidth / Product::kPack;
    const std::int64_t of_sums = kCount * output_panels_ * input_panels_ * kWidth * kWidth;
    return (of_sums > kSharedCache ? of_sums : kSharedCache) / of_row;
  }

  // sums (F, inputs and their parts, W) of one panel of outputs and a block of inputs, from the `first` on; of
  // frequencies that a part does not reach, none. Meanwhile the memory of the result is brought.
  void multiply(std::int64_t panel, std::int64_t first, bool accumulate, A* sums, FiltersAhead<F, W>& result) const {
    constexpr std::int64_t kTiles = kDepth * Product::kPack;
    for (std::int64_t i = 0; i < block_; ++i) {
      for (int f = 0; f < kCount; ++f) {
        if (!reaches<F>(static_cast<int>(i % F::kParts), f)) continue;
        for (std::int64_t tile = 0; tile < tiles_; tile += kTiles) {
          const std::int64_t depth = (tiles_ - tile < kTiles ? tiles_ - tile : kTiles) / Product::kPack;
          const Unit* of_input = input().at(first + i, f) + tile / Product::kPack * kWidth;
          const Unit* of_grad = grad().at(panel, f % kOutputFrequencies) + tile / Product::kPack * kWidth;
          for (int row = 0; row < kWidth; row += kRows) {
            // A part of what comes next: more tiles, or the frequency that lies behind this one.
            result.bring_share();
            prefetch<kSecondLevel>(of_input + depth * (kWidth + row), depth * kRows);
            multiply_block<Product, 1, kWidth>(of_input + row, 0, 1, depth, of_grad,
                                               sums + f * next_frequency() + (i * kWidth + row) * kWidth,
                                               accumulate || tile > 0);
          }
        }
      }
    }
  }

  const WinogradWeight& p_;
  const WinogradShape& s_;
  TileGrid<F> grid_;
  std::int64_t rows_, input_panels_, output_panels_;  // rows of tiles of all samples; panels of the inputs' parts
  std::int64_t chunk_, tiles_;  // rows that are transformed before they are multiplied, their tiles
  std::int64_t block_;          // panels of inputs' parts whose sums are there together: one's, if it can be
  int threads_;
  Buffer<Unit> of_input_, of_grad_;
  Buffer<A> sums_, scratch_;
};

}  // namespace

Status winograd_weight(const WinogradWeight& p) {
  return with_types(p.shape, [&](auto image, auto weight, auto scheme) {
    using T = decltype(image);
    return WeightGradient<T, decltype(weight), Exact<T, decltype(scheme)>>(p).run();
  });
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p

TORCHP2P_CPU_ENTRY_BFLOAT16(winograd_weight, WinogradWeight)
