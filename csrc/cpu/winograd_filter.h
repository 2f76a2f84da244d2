// From filters to the frequencies that a matrix product reads, and from products to the gradient of filters, a block of
// channels that fits the cache at a time.
#pragma once

#include "winograd_matrices.h"
#include "winograd_pixels.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

// Filters of `lanes` channels that a register holds side by side and `terms` channels that are summed over (or, in a
// gradient, the rows of the product), whichever of outputs and inputs they are.
template <class W> struct Filters {
  W* values;
  std::int64_t lanes, terms;
  std::int64_t lane, term, row, column;  // strides

  W* at(std::int64_t of_lane, std::int64_t of_term) const { return values + of_lane * lane + of_term * term; }
  bool dense() const { return row == 3 && column == 1; }
};

// A square of filters: as many terms as lanes, each with nine taps.
template <class A> constexpr int kTaps = 9 * kLanes<A>;
template <class A> constexpr int kSquare = kTaps<A> * kLanes<A>;

// to (terms, 9, lanes), 0 where there are no filters.
template <class W, class A>
inline void load_square(const Filters<W>& filters, std::int64_t lane, std::int64_t term, A* to, A* turned) {
  const std::int64_t lanes = lanes_from<A>(lane, filters.lanes), terms = lanes_from<A>(term, filters.terms);
  const bool whole = lanes == kLanes<A> && terms == kLanes<A> && filters.dense();
  if (whole && filters.term == 9) {
    for (int i = 0; i < kLanes<A>; ++i) {
      for (int j = 0; j < kTaps<A>; j += kLanes<A>) {
        store(turned + i * kTaps<A> + j, load(filters.at(lane + i, term) + j));
      }
    }
    return transpose(turned, kTaps<A>, to, kLanes<A>, kLanes<A>, kTaps<A>);
  }
  for (int k = 0; k < kLanes<A>; ++k, to += kTaps<A>) {
    const W* from = filters.at(lane, term + k);
    if (whole && filters.lane == 9) {
      for (int j = 0; j < kTaps<A>; j += kLanes<A>) store(turned + j, load(from + j));
      transpose(turned, 9, to, kLanes<A>, kLanes<A>, 8);
      store(to + 8 * kLanes<A>, gather(turned + 8, 9, kLanes<A>));
      continue;
    }
    for (int i = 0; i < 9; ++i) {
      store(to + i * kLanes<A>,
            gather(from + i / 3 * filters.row + i % 3 * filters.column, filters.lane, k < terms ? lanes : 0));
    }
  }
}

// The way back.
template <class W, class A>
inline void store_square(const A* from, const Filters<W>& filters, std::int64_t lane, std::int64_t term, A* turned) {
  const std::int64_t lanes = lanes_from<A>(lane, filters.lanes), terms = lanes_from<A>(term, filters.terms);
  if (lanes == kLanes<A> && terms == kLanes<A> && filters.dense() && filters.term == 9) {
    transpose(from, kLanes<A>, turned, kTaps<A>, kTaps<A>, kLanes<A>);
    for (int i = 0; i < kLanes<A>; ++i) {
      for (int j = 0; j < kTaps<A>; j += kLanes<A>) {
        store(filters.at(lane + i, term) + j, load(turned + i * kTaps<A> + j));
      }
    }
    return;
  }
  for (int k = 0; k < terms; ++k) {
    for (int i = 0; i < 9; ++i) {
      scatter(filters.at(lane, term + k) + i / 3 * filters.row + i % 3 * filters.column, filters.lane, lanes,
              load(from + (k * 9 + i) * kLanes<A>));
    }
  }
}

// Frequencies of the filters of a panel of lanes and `depth` terms: to (F, depth, W) values, next_frequency units
// apart.
template <class Product, int kM, class W>
inline void transform_filters(const Filters<W>& filters, std::int64_t panel, std::int64_t term, std::int64_t depth,
                              typename Product::Unit* to, std::int64_t next_frequency,
                              typename Product::Value* scratch) {
  using A = typename Product::Value;
  constexpr int kWidth = kPanel<A>, kCount = (kM + 2) * (kM + 2);
  A *square = scratch, *turned = scratch + kSquare<A>;
  for (std::int64_t k = 0; k < depth; k += kLanes<A>) {
    for (int lane = 0; lane < kWidth; lane += kLanes<A>) {
      load_square(filters, panel * kWidth + lane, term + k, square, turned);
      for (int i = 0; i < kLanes<A>; i += 2) {
        Vec<A> found[2][kCount];
        for (int second = 0; second < 2; ++second) {
          Vec<A> taps[9];
          const A* at = square + (i + second) * kTaps<A>;
          for (int tap = 0; tap < 9; ++tap) taps[tap] = load(at + tap * kLanes<A>);
          sandwich<FilterOf<kM>, A>(taps, found[second]);
        }
        typename Product::Unit* at = to + (k + i) / Product::kPack * kWidth + lane;
        for (int f = 0; f < kCount; ++f) Product::store_two(at + f * next_frequency, kWidth, found[0][f], found[1][f]);
      }
    }
  }
}

// The gradient of the filters of a panel of lanes and `depth` terms, from sums (F, depth, W) that lie next_frequency
// apart.
template <int kM, class W, class A>
inline void store_filter_gradient(const A* sums, std::int64_t next_frequency, const Filters<W>& filters,
                                  std::int64_t panel, std::int64_t term, std::int64_t depth, A* scratch) {
  constexpr int kWidth = kPanel<A>, kCount = (kM + 2) * (kM + 2);
  A *square = scratch, *turned = scratch + kSquare<A>;
  for (std::int64_t k = 0; k < depth; k += kLanes<A>) {
    for (int lane = 0; lane < kWidth; lane += kLanes<A>) {
      for (int i = 0; i < kLanes<A>; ++i) {
        Vec<A> values[kCount], taps[9];
        for (int f = 0; f < kCount; ++f) values[f] = load(sums + f * next_frequency + (k + i) * kWidth + lane);
        sandwich<Transposed<FilterOf<kM>>, A>(values, taps);
        for (int tap = 0; tap < 9; ++tap) store(square + i * kTaps<A> + tap * kLanes<A>, taps[tap]);
      }
      store_square(square, filters, panel * kWidth + lane, term + k, turned);
    }
  }
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
