// Winograd's convolution, and with its filters turned the gradient of its input.
//
// Memory:   x and y once; the weight once for each chunk of tiles. What lies between stays in the cache: frequencies of
//           a chunk of x in that which threads share, those of a block of filters and a panel of sums in a thread's own.
//           The frequencies of the whole weight, 16 / 9 of its size and more, are never in memory.
// Parallel: rows of tiles x registers of channels while x is transformed; then panels of output channels, each of which
//           transforms its filters, multiplies, and transforms its sums back.
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

// Tiles that are multiplied together, if a row has not more; and terms that are summed before the next filters are
// transformed: a panel's filters and sums then share the second-level cache.
constexpr std::int64_t kChunkTiles = 256, kDepth = 128;

template <class T, class W, int kM> class Forward {
  using Product = typename ProductOf<T>::type;
  using A = Accumulator<T>;
  using Unit = typename Product::Unit;
  static constexpr int kWidth = kPanel<A>, kCount = (kM + 2) * (kM + 2);

 public:
  explicit Forward(const WinogradForward& p)
      : p_(p), s_(p.shape), grid_(s_), rows_(s_.samples * grid_.rows),
        chunk_(grid_.columns < kChunkTiles ? kChunkTiles / grid_.columns : 1),
        tiles_(round_up((chunk_ < rows_ ? chunk_ : rows_) * grid_.columns, kRows)),
        input_panels_((s_.inputs + kWidth - 1) / kWidth), output_panels_((s_.outputs + kWidth - 1) / kWidth),
        threads_(thread_count(s_.samples * s_.out_height() * s_.out_width() * s_.outputs)),
        strip_size_(Strip<A>::size(kM + 2, Strip<A>::width(grid_.columns, kM))),
        frequencies_(1, kCount * input_panels_ * tiles_ * kWidth / Product::kPack),
        filters_(threads_, kCount * kBlockUnits), sums_(threads_, kCount * tiles_ * kWidth),
        scratch_(threads_, strip_size_ > 2 * kSquare<A> ? strip_size_ : 2 * kSquare<A>) {}

  Status run() const {
    if (!frequencies_.ok() || !filters_.ok() || !sums_.ok() || !scratch_.ok()) return Status::kOutOfMemory;
    for (std::int64_t first = 0; first < rows_; first += chunk_) {
      const std::int64_t rows = rows_ - first < chunk_ ? rows_ - first : chunk_;
      transform_input(first, rows);
      parallel_for(output_panels_, threads_, [&](std::int64_t panel, int thread) {
        multiply(panel, thread);
        for (std::int64_t i = 0; i < rows; ++i) {
          store_results<kM>(sums_.piece(thread), tiles_, i * grid_.columns, grid_.columns, panel,
                            static_cast<const W*>(p_.bias), s_, (first + i) / grid_.rows, (first + i) % grid_.rows,
                            static_cast<T*>(p_.y), p_.y_stride, strip(thread));
        }
      });
    }
    return Status::kOk;
  }

 private:
  static constexpr std::int64_t kBlockUnits = kDepth / Product::kPack * kWidth;

  Frequencies<Product> frequencies() const { return {frequencies_.piece(0), input_panels_, tiles_}; }
  Strip<A> strip(int thread) const {
    return {scratch_.piece(thread), kM + 2, Strip<A>::width(grid_.columns, kM)};
  }

  void transform_input(std::int64_t first, std::int64_t rows) const {
    const Image<T> image{static_cast<const T*>(p_.x), p_.x_stride, s_.inputs, s_.height, s_.width, s_.pad};
    const std::int64_t registers = input_panels_ * kPanelRegisters;
    parallel_for(rows * registers, threads_, [&](std::int64_t item, int thread) {
      const std::int64_t i = item / registers, row = first + i;
      transform_row<Product, InputOf<kM>, kM, Pairing::kChannels>(image, row / grid_.rows, row % grid_.rows,
                                                                  item % registers, grid_.columns, frequencies(),
                                                                  i * grid_.columns, strip(thread));
    });
    clear_tiles(frequencies(), rows * grid_.columns, kCount);
  }

  // sums (F, tiles, W) of one panel of outputs.
  void multiply(std::int64_t panel, int thread) const {
    const Strides& s = p_.weight_stride;
    const Filters<const W> weight{static_cast<const W*>(p_.weight), s_.outputs, s_.inputs, s.n, s.c, s.h, s.w, p_.flip};
    Unit* filters = filters_.piece(thread);
    constexpr std::int64_t kBlockPanels = kDepth / kWidth;
    for (std::int64_t from = 0; from < input_panels_; from += kBlockPanels) {
      const std::int64_t panels = input_panels_ - from < kBlockPanels ? input_panels_ - from : kBlockPanels;
      transform_filters<Product, kM>(weight, panel, from * kWidth, panels * kWidth, filters, kBlockUnits,
                                     scratch_.piece(thread));
      for (int f = 0; f < kCount; ++f) {
        const Unit* of_input = frequencies().panel(f, from);
        A* sums = sums_.piece(thread) + f * tiles_ * kWidth;
        for (std::int64_t tile = 0; tile < tiles_; tile += kRows) {
          multiply_block<Product, kWidth / Product::kPack, 1>(
              of_input + tile * kWidth / Product::kPack, frequencies().panel_units(), panels, kWidth / Product::kPack,
              filters + f * kBlockUnits, sums + tile * kWidth, from > 0);
        }
      }
    }
  }

  const WinogradForward& p_;
  const WinogradShape& s_;
  TileGrid<kM> grid_;
  std::int64_t rows_, chunk_, tiles_;  // rows of tiles of all samples, and those of a chunk with its tiles
  std::int64_t input_panels_, output_panels_;
  int threads_;
  std::int64_t strip_size_;
  Buffer<Unit> frequencies_, filters_;
  Buffer<A> sums_, scratch_;
};

}  // namespace

Status winograd_forward(const WinogradForward& p) {
  return with_types(p.shape, [&](auto image, auto weight, auto m) {
    return Forward<decltype(image), decltype(weight), m.value>(p).run();
  });
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p

TORCHP2P_CPU_ENTRY_BFLOAT16(winograd_forward, WinogradForward)
