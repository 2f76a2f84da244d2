// From filters to the frequencies that a matrix product reads, and from products to the gradient of filters, a block of
// channels that fits the cache at a time.
#pragma once

#include "winograd_pixels.h"
#include "winograd_transforms.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

// Filters of `lanes` channels that a register holds side by side and `terms` channels that are summed over (or, in a
// gradient, the rows of the product), whichever of outputs and inputs they are.
template <class W> struct Filters {
  W* values;
  std::int64_t lanes, terms;
  std::int64_t lane, term, row, column;  // strides

  W* at(std::int64_t of_lane, std::int64_t of_term) const { return values + of_lane * lane + of_term * term; }
  bool dense(int kernel) const { return row == kernel && column == 1; }
};

// A square of filters: as many terms as lanes, each with all its taps.
template <class F> constexpr int kTapsOfKernel = F::kKernel * F::kKernel;
template <class F, class A> constexpr int kTaps = kTapsOfKernel<F> * kLanes<A>;
template <class F, class A> constexpr int kSquare = kTaps<F, A> * kLanes<A>;

// to (terms, taps, lanes), 0 where there are no filters.
template <class F, class W, class A>
inline void load_square(const Filters<W>& filters, std::int64_t lane, std::int64_t term, A* to, A* turned) {
  constexpr int kKernel = F::kKernel, kOfKernel = kTapsOfKernel<F>, kWhole = kOfKernel / 4 * 4;
  const std::int64_t lanes = lanes_from<A>(lane, filters.lanes), terms = lanes_from<A>(term, filters.terms);
  const bool whole = lanes == kLanes<A> && terms == kLanes<A> && filters.dense(kKernel);
  if (whole && filters.term == kOfKernel) {
    for (int i = 0; i < kLanes<A>; ++i) {
      for (int j = 0; j < kTaps<F, A>; j += kLanes<A>) {
        store(turned + i * kTaps<F, A> + j, load(filters.at(lane + i, term) + j));
      }
    }
    return transpose(turned, kTaps<F, A>, to, kLanes<A>, kLanes<A>, kTaps<F, A>);
  }
  for (int k = 0; k < kLanes<A>; ++k, to += kTaps<F, A>) {
    const W* from = filters.at(lane, term + k);
    if (kOfKernel == 9 && whole && filters.lane == kOfKernel && transpose_nines(from, to)) continue;
    if (whole && filters.lane == kOfKernel) {
      for (int j = 0; j < kTaps<F, A>; j += kLanes<A>) store(turned + j, load(from + j));
      transpose(turned, kOfKernel, to, kLanes<A>, kLanes<A>, kWhole);
      for (int i = kWhole; i < kOfKernel; ++i) store(to + i * kLanes<A>, gather(turned + i, kOfKernel, kLanes<A>));
      continue;
    }
    for (int i = 0; i < kOfKernel; ++i) {
      store(to + i * kLanes<A>, gather(from + i / kKernel * filters.row + i % kKernel * filters.column, filters.lane,
                                       k < terms ? lanes : 0));
    }
  }
}

// The way back.
template <class F, class W, class A>
inline void store_square(const A* from, const Filters<W>& filters, std::int64_t lane, std::int64_t term, A* turned) {
  constexpr int kKernel = F::kKernel, kOfKernel = kTapsOfKernel<F>;
  const std::int64_t lanes = lanes_from<A>(lane, filters.lanes), terms = lanes_from<A>(term, filters.terms);
  if (lanes == kLanes<A> && terms == kLanes<A> && filters.dense(kKernel) && filters.term == kOfKernel) {
    transpose(from, kLanes<A>, turned, kTaps<F, A>, kTaps<F, A>, kLanes<A>);
    for (int i = 0; i < kLanes<A>; ++i) {
      for (int j = 0; j < kTaps<F, A>; j += kLanes<A>) {
        store(filters.at(lane + i, term) + j, load(turned + i * kTaps<F, A> + j));
      }
    }
    return;
  }
  for (int k = 0; k < terms; ++k) {
    for (int i = 0; i < kOfKernel; ++i) {
      scatter(filters.at(lane, term + k) + i / kKernel * filters.row + i % kKernel * filters.column, filters.lane,
              lanes, load(from + (k * kOfKernel + i) * kLanes<A>));
    }
  }
}

// Filters that will be read or written, brought from memory a few lines at a time while something else is computed: all
// at once would keep it waiting.
template <class F, class W> class FiltersAhead {
  static constexpr std::int64_t kPerLine = 64 / static_cast<std::int64_t>(sizeof(W));

 public:
  // Those of a panel of `width` lanes and of `terms` channels, as far as there are any, in so many `shares`.
  FiltersAhead(const Filters<W>& filters, std::int64_t lane, std::int64_t width, std::int64_t term, std::int64_t terms,
               std::int64_t shares) {
    if (lane >= filters.lanes || term >= filters.terms) return;
    width = lane + width > filters.lanes ? filters.lanes - lane : width;
    terms = term + terms > filters.terms ? filters.terms - term : terms;
    const bool by_lane = filters.lane > filters.term;
    from_ = filters.at(lane, term);
    next_row_ = by_lane ? filters.lane : filters.term;
    rows_ = by_lane ? width : terms;
    lines_ = ((by_lane ? terms : width) * kTapsOfKernel<F> + kPerLine - 1) / kPerLine;
    share_ = (rows_ * lines_ + shares - 1) / shares;
  }

  void bring_share() {
    for (std::int64_t i = 0; i < share_ && rows_ > 0; ++i) {
      prefetch<kSecondLevel>(from_ + line_ * kPerLine, 1);
      if (++line_ < lines_) continue;
      line_ = 0;
      --rows_;
      from_ += next_row_;
    }
  }

 private:
  const W* from_ = nullptr;
  std::int64_t next_row_ = 0, rows_ = 0, lines_ = 0, share_ = 0, line_ = 0;
};

// body(part), a constant: which taps it has is known when compiling.
template <class F, class Body> inline void with_part(int part, const Body& body) {
  each<F::kParts>([&](auto constant) {
    if (constant == part) body(constant);
  });
}

// Where tap (i, j) of a part stands among the taps of the kernel; none where the kernel ends before: -1.
template <class F, int kPart> constexpr int tap_of(int i, int j) {
  const int row = kPart / 2 + i * F::kStride, column = kPart % 2 + j * F::kStride;
  return row < F::kKernel && column < F::kKernel ? row * F::kKernel + column : -1;
}

// What `spread` reads of a part of a register of filters: remainders of its columns of taps.
template <class F, int kPart, class A> struct FilterRows {
  Vec<A> remainders[F::kRemainders * F::kR];

  explicit FilterRows(const A* taps) {
    each<F::kR>([&](auto j) {
      Vec<A> column[F::kR], found[F::kRemainders];
      each<F::kR>([&](auto i) {
        constexpr int there = tap_of<F, kPart>(i, j);
        column[i] = there < 0 ? Vec<A>{} : load(taps + there * kLanes<A>);
      });
      evaluate<FilterOf<F>, A>(column, found);
      each<F::kRemainders>([&](auto i) { remainders[i * F::kR + j] = found[i]; });
    });
  }

  void operator()(int i, Vec<A>* values) const {
    each<F::kR>([&](auto j) { values[j] = remainders[i * F::kR + j]; });
  }
};

// Frequencies of the filters of a panel of lanes and of `panels` panels of channels as terms, each with `parts` parts
// from `first_part` on: to (F, panels, parts, W, W) values, kNextFrequency units apart.
template <class Product, class F, std::int64_t kNextFrequency, class W>
inline void transform_filters(const Filters<W>& filters, std::int64_t lane_panel, std::int64_t term_panel,
                              std::int64_t panels, int first_part, int parts, typename Product::Unit* to,
                              typename Product::Value* scratch) {
  using A = typename Product::Value;
  constexpr int kWidth = kPanel<A>;
  A *square = scratch, *turned = scratch + kSquare<F, A>;
  for (std::int64_t k = 0; k < panels * kWidth; k += kLanes<A>) {
    for (int lane = 0; lane < kWidth; lane += kLanes<A>) {
      load_square<F>(filters, lane_panel * kWidth + lane, term_panel * kWidth + k, square, turned);
      for (int part = 0; part < parts; ++part) {
        const std::int64_t row = (k / kWidth * parts + part) * kWidth + k % kWidth;
        with_part<F>(first_part + part, [&](auto constant) {
          for (int i = 0; i < kLanes<A>; i += 2) {
            spread_two<Product, FilterOf<F>>([&](int second) {
              return FilterRows<F, constant, A>(square + (i + second) * kTaps<F, A>);
            }, to + (row + i) / Product::kPack * kWidth + lane, kNextFrequency);
          }
        });
      }
    }
  }
}

// The gradient of the filters of a panel of lanes and of `panels` panels of terms from the `first` on, from sums
// (F, panels, parts, W, W) that lie next_frequency apart.
template <class F, class W, class A>
inline void store_filter_gradient(const A* sums, std::int64_t next_frequency, const Filters<W>& filters,
                                  std::int64_t lane_panel, std::int64_t first, std::int64_t panels, A* scratch) {
  constexpr int kWidth = kPanel<A>;
  A *square = scratch, *turned = scratch + kSquare<F, A>;
  for (std::int64_t k = 0; k < panels * kWidth; k += kLanes<A>) {
    for (int lane = 0; lane < kWidth; lane += kLanes<A>) {
      each<F::kParts>([&](auto part) {
        const std::int64_t row = (k / kWidth * F::kParts + part) * kWidth + k % kWidth;
        for (int i = 0; i < kLanes<A>; ++i) {
          gather_tile<FilterOf<F>>(sums + (row + i) * kWidth + lane, next_frequency, [&](int r, int s, Vec<A> tap) {
            const int there = tap_of<F, part>(r, s);
            if (there >= 0) store(square + i * kTaps<F, A> + there * kLanes<A>, tap);
          });
        }
      });
      store_square<F>(square, filters, lane_panel * kWidth + lane, first * kWidth + k, turned);
    }
  }
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
