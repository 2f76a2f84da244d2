// Walks over a flat row of values whose channel repeats with a period.
//
// NCHW: a row belongs to one channel; coefficients are one broadcast register each ("uniform") and four
// accumulators run side by side. NHWC: coefficients and accumulators are arrays of one period, the least
// common multiple of C and the register width, so that any C is worked on in whole registers.
#pragma once

#include "vec.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

constexpr int kUnroll = 4;

// A whole register, or its first n lanes at the end of a row.
struct Whole {};
struct Some {
  int n;
};

template <class T> inline Vec<Accumulator<T>> get(const T* p, Whole, Vec<Accumulator<T>>) { return load(p); }
template <class T> inline Vec<Accumulator<T>> get(const T* p, Some some, Vec<Accumulator<T>> fill) {
  return load_some(p, some.n, fill);
}
template <class T> inline void put(T* p, Vec<Accumulator<T>> v, Whole, bool past_cache = false) {
  if constexpr (sizeof(T) == sizeof(Accumulator<T>)) {
    if (past_cache) return store_past_cache(p, v);
  }
  store(p, v);
}
template <class T> inline void put(T* p, Vec<Accumulator<T>> v, Some some, bool = false) { store_some(p, v, some.n); }

// One coefficient per channel.
template <class A, bool kUniform> class Coefficient;

template <class A> class Coefficient<A, true> {
 public:
  explicit Coefficient(const A* values) : value_(broadcast(values[0])) {}
  Vec<A> at(std::int64_t) const { return value_; }

 private:
  Vec<A> value_;
};

template <class A> class Coefficient<A, false> {
 public:
  explicit Coefficient(const A* values) : values_(values) {}
  Vec<A> at(std::int64_t slot) const { return load(values_ + slot * kLanes<A>); }

 private:
  const A* values_;
};

// body(offset, slot, Whole or Some): slot counts registers within the period. A uniform row may begin with `lead`
// values, fewer than a register, that bring the rest to an aligned address.
template <class A, bool kUniform, class Body>
inline void sweep(std::int64_t length, std::int64_t period, const Body& body, std::int64_t lead = 0) {
  constexpr std::int64_t kStep = kLanes<A>;
  std::int64_t i = 0;
  if constexpr (kUniform) {
    if (lead > 0) body(0, 1, Some{static_cast<int>(lead)});
    i = lead;
    for (; i + kUnroll * kStep <= length; i += kUnroll * kStep) {
      body(i, 0, Whole{});
      body(i + kStep, 1, Whole{});
      body(i + 2 * kStep, 2, Whole{});
      body(i + 3 * kStep, 3, Whole{});
    }
    for (; i + kStep <= length; i += kStep) body(i, 0, Whole{});
    if (i < length) body(i, 1, Some{static_cast<int>(length - i)});
  } else {
    for (; i + period <= length; i += period) {
      for (std::int64_t j = 0; j < period; j += kStep) body(i + j, j / kStep, Whole{});
    }
    std::int64_t j = 0;
    for (; i + j + kStep <= length; j += kStep) body(i + j, j / kStep, Whole{});
    if (i + j < length) body(i + j, j / kStep, Some{static_cast<int>(length - i - j)});
  }
}

// Two running sums per channel in the accumulator type, over at most a block of values: then into doubles.
template <class A, bool kUniform> class Sums {
 public:
  // `memory` holds 2 * period values; channels of them are told apart.
  Sums(A* memory, std::int64_t period, std::int64_t channels)
      : first_(memory), second_(memory + period), period_(period), channels_(channels) {}

  void clear() {
    for (std::int64_t i = 0; i < period_; ++i) first_[i] = second_[i] = 0;
  }

  // body(offset, slot, first, second, Whole or Some) for every register of `length` values, with the sums of its slot.
  template <class Body> void add(std::int64_t length, const Body& body) {
    if constexpr (kUniform) {
      Vec<A> first[kUnroll], second[kUnroll];
      for (int k = 0; k < kUnroll; ++k) {
        first[k] = load(first_ + k * kLanes<A>);
        second[k] = load(second_ + k * kLanes<A>);
      }
      sweep<A, true>(length, period_, [&](std::int64_t i, std::int64_t slot, auto extent) {
        body(i, slot, first[slot], second[slot], extent);
      });
      for (int k = 0; k < kUnroll; ++k) {
        store(first_ + k * kLanes<A>, first[k]);
        store(second_ + k * kLanes<A>, second[k]);
      }
    } else if (period_ == channels_) {
      add_columns(length, body);
    } else {
      auto *first = reinterpret_cast<Vec<A>*>(first_), *second = reinterpret_cast<Vec<A>*>(second_);
      sweep<A, false>(length, period_, [&](std::int64_t i, std::int64_t slot, auto extent) {
        body(i, slot, first[slot], second[slot], extent);
      });
    }
  }

  double first(std::int64_t channel) const { return folded(first_, channel); }
  double second(std::int64_t channel) const { return folded(second_, channel); }

 private:
  // For channels that are whole registers: a few slots at a time keep their sums in registers, so that an addition
  // need not wait until the last one is stored; over blocks of pixels that stay in L1 meanwhile.
  template <class Body> void add_columns(std::int64_t length, const Body& body) {
    constexpr std::int64_t kBlock = 4096;
    const std::int64_t slots = period_ / kLanes<A>, step = period_ < kBlock ? kBlock / period_ * period_ : period_;
    for (std::int64_t begin = 0; begin < length; begin += step) {
      const std::int64_t end = begin + step < length ? begin + step : length;
      std::int64_t slot = 0;
      for (; slot + 8 <= slots; slot += 8) add_slots<8>(slot, begin, end, body);
      for (; slot + 4 <= slots; slot += 4) add_slots<4>(slot, begin, end, body);
      for (; slot < slots; ++slot) add_slots<1>(slot, begin, end, body);
    }
  }

  template <int kSlots, class Body>
  void add_slots(std::int64_t slot, std::int64_t begin, std::int64_t end, const Body& body) {
    constexpr std::int64_t kStep = kLanes<A>;
    Vec<A> first[kSlots], second[kSlots];
    for (int k = 0; k < kSlots; ++k) {
      first[k] = load(first_ + (slot + k) * kStep);
      second[k] = load(second_ + (slot + k) * kStep);
    }
    for (std::int64_t i = begin; i < end; i += period_) {
#pragma GCC unroll 8
      for (int k = 0; k < kSlots; ++k) body(i + (slot + k) * kStep, slot + k, first[k], second[k], Whole{});
    }
    for (int k = 0; k < kSlots; ++k) {
      store(first_ + (slot + k) * kStep, first[k]);
      store(second_ + (slot + k) * kStep, second[k]);
    }
  }

  double folded(const A* values, std::int64_t channel) const {
    if constexpr (kUniform) {
      constexpr int kStep = kLanes<A>;
      return sum_lanes<A>((load(values) + load(values + kStep)) +
                          (load(values + 2 * kStep) + load(values + 3 * kStep)));
    }
    double total = 0;
    for (std::int64_t i = channel; i < period_; i += channels_) total += static_cast<double>(values[i]);
    return total;
  }

  A *first_, *second_;
  std::int64_t period_, channels_;
};

// The period of a row with `channels` interleaved channels (1 for NCHW).
template <class A> inline std::int64_t period_of(std::int64_t channels, bool uniform) {
  constexpr std::int64_t kStep = kLanes<A>;
  if (uniform) return kUnroll * kStep;
  std::int64_t common = kStep;
  while (channels % common != 0) common /= 2;  // the width is a power of two, so this is the gcd
  return channels * (kStep / common);
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
