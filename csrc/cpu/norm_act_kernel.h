// What the forward and the backward of norm_act share: activations, the coefficients of a unit, and how results are
// stored.
#pragma once

#include <cmath>
#include <initializer_list>
#include <type_traits>

#include "norm_act_plan.h"
#include "vmath.h"

namespace torchp2p {
namespace TORCHP2P_ISA {
namespace {

template <Activation kAct, class A> inline Vec<A> activate(Vec<A> z, Vec<A> slope) {
  if constexpr (kAct == Activation::kLeakyRelu) return z > 0 ? z : z * slope;
  if constexpr (kAct == Activation::kRelu) return z < 0 ? Vec<A>{} : z;  // a nan stays
  if constexpr (kAct == Activation::kTanh) return tanh(z);
  return z;
}

template <Activation kAct, class A> inline Vec<A> through_activation(Vec<A> g, Vec<A> z, Vec<A> slope) {
  if constexpr (kAct == Activation::kLeakyRelu) return z > 0 ? g : g * slope;
  if constexpr (kAct == Activation::kRelu) return z <= 0 ? Vec<A>{} : g;
  if constexpr (kAct == Activation::kTanh) {
    const Vec<A> t = tanh(z);
    return g * (1 - t * t);
  }
  return g;
}

template <class Body> inline void with_activation(Activation act, const Body& body) {
  switch (act) {
    case Activation::kLeakyRelu: return body(std::integral_constant<Activation, Activation::kLeakyRelu>{});
    case Activation::kRelu: return body(std::integral_constant<Activation, Activation::kRelu>{});
    case Activation::kTanh: return body(std::integral_constant<Activation, Activation::kTanh>{});
    case Activation::kNone: return body(std::integral_constant<Activation, Activation::kNone>{});
  }
}

// The coefficients of one unit, each repeated over a period: xhat = (x - mean) * rstd, z = xhat * weight + bias,
// and for the gradient the means of g' and g' * xhat and the factor weight * rstd.
template <class A> struct Coefficients {
  A *mean, *rstd, *weight, *bias, *mean_g, *mean_gx, *factor;
  static constexpr int kCount = 7;

  Coefficients(A* memory, std::int64_t period)
      : mean(memory), rstd(memory + period), weight(memory + 2 * period), bias(memory + 3 * period),
        mean_g(memory + 4 * period), mean_gx(memory + 5 * period), factor(memory + 6 * period) {}
};

// What forward and backward share: the statistics and affine parameters of a unit's channels.
template <class T, bool kUniform> class KernelBase {
 public:
  using A = Accumulator<T>;

  KernelBase(const NormActShape& shape, const Plan& plan)
      : shape_(shape), plan_(plan), period_(period_of<A>(plan.cell, kUniform)),
        block_(kUniform ? 4096
                        : period_ * (16384 / period_ < 16   ? 16
                                     : 16384 / period_ > 64 ? 64
                                                            : 16384 / period_)),
        coefficients_(plan.threads, Coefficients<A>::kCount * period_), sums_(plan.threads, 2 * period_),
        totals_(plan.threads, 2 * plan.cell), partials_(plan.partials(), 2 * plan.cell) {}

  bool ok() const { return coefficients_.ok() && sums_.ok() && totals_.ok() && partials_.ok(); }

 protected:
  void clear(double* sums) const {
    for (std::int64_t i = 0; i < 2 * plan_.cell; ++i) sums[i] = 0;
  }

  Coefficients<A> coefficients(std::int64_t slot) const { return {coefficients_.piece(slot), period_}; }
  Sums<A, kUniform> sums(int thread) const { return {sums_.piece(thread), period_, plan_.cell}; }

  // The channel at index k of a unit's channels, and its place among the statistics.
  std::int64_t channel(std::int64_t unit, std::int64_t k) const { return plan_.channels_last ? k : unit % plan_.c; }
  std::int64_t statistic(std::int64_t unit, std::int64_t k) const {
    if (shape_.statistics == Statistics::kGiven) return channel(unit, k);
    return plan_.channels_last ? unit * plan_.c + k : unit;
  }

  // Values per channel in a chunk, in the chunks before it, and in a unit.
  double values(std::int64_t index) const { return static_cast<double>(plan_.chunk(0, index).rows() * plan_.w); }
  double values_before(std::int64_t index) const {
    const std::int64_t rows = index / plan_.chunks_per_sample * plan_.h + plan_.chunk(0, index).row_begin;
    return static_cast<double>(rows * plan_.w);
  }
  double values_per_unit() const { return static_cast<double>(plan_.samples * plan_.h * plan_.w); }

  // Repeats the first plan.cell values over the period (a uniform coefficient is read from the first alone).
  void fill_period(A* values) const {
    if constexpr (kUniform) return;
    for (std::int64_t i = plan_.cell; i < period_; ++i) values[i] = values[i - plan_.cell];
  }

  // How a row of results is stored: past the cache where the whole result is too large for it. That needs aligned
  // addresses: `lead` values come before the first one.
  struct Store {
    bool past_cache;
    std::int64_t lead;
  };
  Store store_to(const T* row, std::int64_t length) const {
    const std::int64_t off = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(row) % kVectorBytes);
    const std::int64_t lead = off == 0 ? 0 : (kVectorBytes - off) / static_cast<std::int64_t>(sizeof(T));
    const bool large = plan_.n * plan_.c * plan_.h * plan_.w * static_cast<std::int64_t>(sizeof(T)) >= kPastCacheBytes;
    const bool reachable = sizeof(T) == sizeof(A) && (kUniform ? lead < length : off == 0);
    return large && reachable ? Store{true, lead} : Store{false, 0};
  }

  void set_statistic(std::int64_t i, double mean, double variance, const Coefficients<A>& k) const {
    const bool none = shape_.statistics == Statistics::kNone;
    k.mean[i] = none ? A(0) : static_cast<A>(mean);
    k.rstd[i] = none ? A(1) : static_cast<A>(1 / std::sqrt(variance + shape_.eps));
  }

  // To be called with the statistics of the unit's channels in place.
  void set_affine(std::int64_t unit, const void* weight, const void* bias, const Coefficients<A>& k) const {
    for (std::int64_t i = 0; i < plan_.cell; ++i) {
      const std::int64_t c = channel(unit, i);
      k.weight[i] = weight ? static_cast<const A*>(weight)[c] : A(1);
      k.bias[i] = bias ? static_cast<const A*>(bias)[c] : A(-0.0);  // the sum that changes nothing, not even -0
      k.factor[i] = k.rstd[i] * k.weight[i];
    }
    for (A* values : {k.mean, k.rstd, k.weight, k.bias, k.factor}) fill_period(values);
  }

  const NormActShape& shape_;
  const Plan& plan_;
  const std::int64_t period_, block_;
  Buffer<A> coefficients_, sums_;
  Buffer<double> totals_, partials_;
};

}  // namespace
}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
