// The transcendental functions that the kernels need, on one register.
//
// Float registers go through double polynomials (relative error about 1e-9, so the float result is rounded
// once); double registers call the C library lane by lane. No global fast-math.
#pragma once

#include <cmath>
#include <cstdint>

#include "vec.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

constexpr int kDoubles = kLanes<double>;
typedef float HalfFloats __attribute__((vector_size(kVectorBytes / 2)));
typedef std::int64_t I64 __attribute__((vector_size(kVectorBytes)));

// exp(x) = scale * (1 + rest) for x in [-700, 0]: x = k ln 2 + r, scale = 2^k, rest = exp(r) - 1 by a Taylor
// polynomial of degree 8 in |r| <= 0.35.
struct Exponential {
  Vec<double> scale, rest;
  Vec<double> value() const { return scale * rest + scale; }
  Vec<double> minus_one() const { return scale * rest + (scale - 1.0); }
};

inline Exponential exponential(Vec<double> x) {
  constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer
  const Vec<double> shifted = x * 1.4426950408889634 + kMagic;
  const Vec<double> k = shifted - kMagic;
  const Vec<double> r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10;
  Vec<double> p = broadcast(1.0 / 40320.0);
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  const I64 exponent = (reinterpret_cast<I64>(shifted) - reinterpret_cast<I64>(broadcast(kMagic)) + 1023) << 52;
  return {reinterpret_cast<Vec<double>>(exponent), p * r};
}

// log(1 + e) for e in [0, 1]: 2 atanh(e / (2 + e)), the argument at most 1/3.
inline Vec<double> log1p_unit(Vec<double> e) {
  const Vec<double> s = e / (e + 2.0), q = s * s;
  Vec<double> p = broadcast(1.0 / 15.0);
  p = p * q + 1.0 / 13.0;
  p = p * q + 1.0 / 11.0;
  p = p * q + 1.0 / 9.0;
  p = p * q + 1.0 / 7.0;
  p = p * q + 1.0 / 5.0;
  p = p * q + 1.0 / 3.0;
  return 2.0 * s * (p * q + 1.0);
}

// |x| limited so that exp(-2|x|) neither underflows nor matters; a nan passes (both comparisons fail).
inline Vec<double> limited_magnitude(Vec<double> x, double limit) {
  const Vec<double> magnitude = x < 0.0 ? -x : x;
  return magnitude > limit ? broadcast(limit) : magnitude;
}

// The two halves of a float register as doubles, and back.
struct TwoHalves {
  Vec<double> half[2];
};

// By intrinsics where there is one instruction for a half: GCC makes of __builtin_convertvector quarters and joins
// them.
inline TwoHalves to_double(Vec<float> x) {
#if defined(__AVX512F__)
  const __m512d both = _mm512_castps_pd(x);
  const __m256d lower = _mm512_maskz_extractf64x4_pd(0xf, both, 0), upper = _mm512_maskz_extractf64x4_pd(0xf, both, 1);
  return {{_mm512_maskz_cvtps_pd(0xff, _mm256_castpd_ps(lower)), _mm512_maskz_cvtps_pd(0xff, _mm256_castpd_ps(upper))}};
#else
  HalfFloats part[2];
  std::memcpy(part, &x, sizeof x);
  return {{__builtin_convertvector(part[0], Vec<double>), __builtin_convertvector(part[1], Vec<double>)}};
#endif
}

inline Vec<float> to_float(const TwoHalves& x) {
  const HalfFloats part[2] = {__builtin_convertvector(x.half[0], HalfFloats),
                              __builtin_convertvector(x.half[1], HalfFloats)};
  Vec<float> out;
  std::memcpy(&out, part, sizeof out);
  return out;
}

inline Vec<float> tanh(Vec<float> x) {
  TwoHalves halves = to_double(x);
  for (Vec<double>& v : halves.half) {
    const Vec<double> e = exponential(-2.0 * limited_magnitude(v, 20.0)).minus_one();
    const I64 magnitude = reinterpret_cast<I64>(-e / (e + 2.0)) & INT64_MAX;
    v = reinterpret_cast<Vec<double>>(magnitude | (reinterpret_cast<I64>(v) & INT64_MIN));  // zeros keep theirs
  }
  return to_float(halves);
}

inline Vec<double> tanh(Vec<double> x) {
  for (int i = 0; i < kDoubles; ++i) x[i] = std::tanh(x[i]);
  return x;
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
