// softplus(q) = log(1 + exp(q)) and its slope, what mode vanilla is made of. Two ways:
//
//   any q:  from e = exp(-|q|), max(q, 0) + log(1 + e), in double: relatively exact and without overflow whatever q is.
//   near:   where all q of a piece are between -22 and 22. exp(q) in float, and the logarithms of 1 + exp(q) of many
//           values at once, as that of their product in double: no logarithm a value, so that it keeps up with memory.
#pragma once

#include <cmath>

#include "near_exponential.h"
#include "vmath.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

template <class A> struct Term {
  Vec<A> loss, slope;
};

// The slope, sigmoid(q).
template <class A> inline Vec<A> softplus_slope(Vec<A> q, Vec<A> e) { return (q < 0 ? e : broadcast(A(1))) / (e + 1); }

inline Term<double> softplus(Vec<double> q) {
  Vec<double> e, log1p_e;
  for (int i = 0; i < kDoubles; ++i) {
    e[i] = std::exp(-std::fabs(q[i]));
    log1p_e[i] = std::log1p(e[i]);
  }
  return {(q < 0 ? Vec<double>{} : q) + log1p_e, softplus_slope<double>(q, e)};
}

inline Term<float> softplus(Vec<float> q) {
  TwoHalves e = to_double(q), log1p_e;
  for (int i = 0; i < 2; ++i) {
    e.half[i] = exponential(-limited_magnitude(e.half[i], 700.0)).value();
    log1p_e.half[i] = log1p_unit(e.half[i]);
  }
  return {(q < 0 ? Vec<float>{} : q) + to_float(log1p_e), softplus_slope<float>(q, to_float(e))};
}

// (1 + a)(1 + b) - 1, as exact relatively as a and b.
inline Vec<float> joined(Vec<float> a, Vec<float> b) { return a + (a * b + b); }

// A product of numbers from 1 on, of which no more than 2^1000 come between two calls of shorten().
class Product {
 public:
  void multiply_by_one_plus(Vec<double> e) { value_ += value_ * e; }

  // Puts the exponents aside.
  void shorten() {
    const I64 bits = reinterpret_cast<I64>(value_);
    exponents_ += (bits >> 52) - 1023;
    value_ = reinterpret_cast<Vec<double>>((bits & 0x000fffffffffffff) | (std::int64_t{1023} << 52));
  }

  double logarithm() {
    shorten();
    double factors = 1;
    std::int64_t exponent = 0;
    for (int lane = 0; lane < kDoubles; ++lane) {
      factors *= value_[lane];
      exponent += exponents_[lane];
    }
    return std::log(factors) + static_cast<double>(exponent) * 0.69314718055994530942;
  }

 private:
  Vec<double> value_ = broadcast(1.0);
  I64 exponents_{};
};

// Adds to `total` the sum of softplus(sign * p) over whole registers of values. With kSlopes, `slopes` gets factor *
// softplus'. False, and `total` as it was, unless all values are near.
template <bool kSlopes, class T>
bool add_near_softplus(const T* p, float* slopes, std::int64_t size, float sign, float factor, double& total) {
  constexpr int kJoined = 4;                                             // (1 + exp(22))^4 < 2^128, a float
  constexpr std::int64_t kStep = kJoined * kFloats, kBlock = 7 * kStep;  // (2^128)^7 < 2^1000
  NearExponential exponential(sign);
  Product product[2];
  const auto take = [&](std::int64_t i) {
    const Vec<float> e = exponential(load(p + i));
    if constexpr (kSlopes) store(slopes + i, e / (e + 1) * factor);
    return e;
  };
  const auto multiply = [&](Vec<float> e) {
    const TwoHalves wide = to_double(e);
    for (int half = 0; half < 2; ++half) product[half].multiply_by_one_plus(wide.half[half]);
  };
  for (std::int64_t begin = 0; begin < size; begin += kBlock) {
    const std::int64_t end = begin + kBlock < size ? begin + kBlock : size;
    std::int64_t i = begin;
    for (; i + kStep <= end; i += kStep) {
      Vec<float> e[kJoined];
#pragma GCC unroll 4
      for (int k = 0; k < kJoined; ++k) e[k] = take(i + k * kFloats);
      multiply(joined(joined(e[0], e[1]), joined(e[2], e[3])));
    }
    for (; i < end; i += kFloats) multiply(take(i));
    for (Product& half : product) half.shorten();
  }
  if (!exponential.all_near()) return false;
  total += product[0].logarithm() + product[1].logarithm();
  return true;
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
