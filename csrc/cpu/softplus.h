// softplus(q) = log(1 + exp(q)) and its slope, what mode vanilla is made of. Two ways:
//
//   any q:  from e = exp(-|q|), max(q, 0) + log(1 + e), in double: relatively exact and without overflow whatever q is.
//   near:   where all |q| of a piece are below kNear. e in float, and the logarithms of (1 + e) of many values at once,
//   as
//           that of their product in double: no logarithm, no division a value, so that it keeps up with memory.
#pragma once

#include <cmath>

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

// max(x, 0). GCC makes a comparison and a choice of the one line.
inline Vec<float> positive_part(Vec<float> x) {
#if defined(__AVX512F__)
  return _mm512_maskz_max_ps(0xffff, x, Vec<float>{});
#else
  return x > 0 ? x : Vec<float>{};
#endif
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

// Adds to `total` the sum of softplus(sign * p) over whole registers of values. Where wanted, `slopes` gets factor *
// softplus'. False, and `total` as it was, unless all values are near.
template <class T>
bool add_near_softplus(const T* p, float* slopes, std::int64_t size, float sign, float factor, double& total) {
  constexpr int kSums = 4;  // several, so that one need not wait for the one before
  constexpr std::int64_t kStep = kSums * kFloats, kBlock = 16 * kStep;
  Product product[2];
  TwoHalves sum = {};
  U32 largest{};  // magnitude, by its bits: those of a nan are above those of any number
  const U32 sign_bit = reinterpret_cast<U32>(broadcast(-0.0f)),
            flip = reinterpret_cast<U32>(broadcast(sign)) & sign_bit;
  for (std::int64_t begin = 0; begin < size; begin += kBlock) {
    Vec<float> positive[kSums] = {};
    const auto take = [&](std::int64_t i, int k) {
      const U32 bits = reinterpret_cast<U32>(load(p + i)), magnitude = bits & ~sign_bit;
      const Vec<float> q = reinterpret_cast<Vec<float>>(bits ^ flip);
      const Vec<float> e = exponential_near(reinterpret_cast<Vec<float>>(bits | sign_bit));
      largest = magnitude > largest ? magnitude : largest;
      positive[k] += positive_part(q);
      if (slopes) store(slopes + i, softplus_slope<float>(q, e) * factor);
      return e;
    };
    const auto multiply = [&](Vec<float> e) {
      const TwoHalves wide = to_double(e);
      for (int half = 0; half < 2; ++half) product[half].multiply_by_one_plus(wide.half[half]);
    };
    const std::int64_t end = begin + kBlock < size ? begin + kBlock : size;
    std::int64_t i = begin;
    for (; i + kStep <= end; i += kStep) {
      Vec<float> e[kSums];
#pragma GCC unroll 4
      for (int k = 0; k < kSums; ++k) e[k] = take(i + k * kFloats, k);
      multiply(joined(joined(e[0], e[1]), joined(e[2], e[3])));
    }
    for (; i < end; i += kFloats) multiply(take(i, 0));
    const TwoHalves wide = to_double((positive[0] + positive[1]) + (positive[2] + positive[3]));
    for (int half = 0; half < 2; ++half) {
      sum.half[half] += wide.half[half];
      product[half].shorten();
    }
  }
  const U32 limit = reinterpret_cast<U32>(broadcast(kNear));
  for (int lane = 0; lane < kFloats; ++lane) {
    if (largest[lane] >= limit[lane]) return false;
  }
  total += sum_lanes<double>(sum.half[0] + sum.half[1]) + product[0].logarithm() + product[1].logarithm();
  return true;
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
