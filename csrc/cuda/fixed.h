// Sums of doubles that are the same in any order: as integers, in units that fit the largest of them. So atomics may
// add them, and still every run gives the same bits.
//
// It takes two steps. First all addends agree on a scale, the largest of theirs (scale_of, join_scales); then each is
// added in units of that scale (add_fixed). A limb has 62 - headroom bits of an addend, where 2^headroom is no less
// than the number of addends: 41 for two million, so a float32 loses nothing beside one 100000 times as large, and then
// less than any sum in float would. A second limb, for float64, has as many bits again.
#pragma once

#include <cuda_runtime.h>

namespace torchp2p {

// A scale is the exponent of the largest addend, made positive (0: all are zeros), or marks of what is not finite.
constexpr int kScaleBias = 2048;
constexpr int kPlusInfinity = 1 << 13, kMinusInfinity = 1 << 14, kNotANumber = 1 << 15;

template <class T> constexpr int kLimbs = sizeof(T) == 8 ? 2 : 1;

inline __device__ int scale_of(double v) {
  if (v == 0) return 0;
  if (v != v) return kNotANumber;
  if (v - v != 0) return v > 0 ? kPlusInfinity : kMinusInfinity;
  int exponent;
  frexp(v, &exponent);  // |v| < 2^exponent
  return exponent + kScaleBias;
}

inline __device__ void join_scales(int* scale, int other) {
  if (other >= kPlusInfinity) {
    atomicOr(scale, other);
  } else {
    atomicMax(scale, other);
  }
}

// Adds v to the limbs of a total, which began as zeros.
template <int kCount>
inline __device__ void add_fixed(unsigned long long* limbs, double v, int scale, int headroom) {
  if (scale >= kPlusInfinity || v == 0) return;
  const int bits = 62 - headroom;
  double units = ldexp(v, bits - (scale - kScaleBias));
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const long long whole = llrint(units);
    atomicAdd(limbs + i, static_cast<unsigned long long>(whole));  // modulo 2^64 subtracting is adding
    units = ldexp(units - double(whole), bits);
  }
}

template <int kCount>
inline __device__ double fixed_total(const unsigned long long* limbs, int scale, int headroom) {
  if (scale >= kPlusInfinity) {
    const bool plus = (scale & kPlusInfinity) != 0, minus = (scale & kMinusInfinity) != 0;
    if ((scale & kNotANumber) != 0 || (plus && minus)) return nan("");
    return plus ? HUGE_VAL : -HUGE_VAL;
  }
  const int bits = 62 - headroom;
  double total = 0;
#pragma unroll
  for (int i = kCount - 1; i >= 0; --i) total = double(static_cast<long long>(limbs[i])) + ldexp(total, -bits);
  return ldexp(total, scale - kScaleBias - bits);
}

}  // namespace torchp2p
