// What the kernels of norm_act compute at a pixel, and the moments of many.
#pragma once

#include <cmath>

#include "reduce.h"
#include "torchp2p/norm_act.h"
#include "types.h"

namespace torchp2p {

template <class A> inline __device__ A activate(Activation act, A z, A slope) {
  if (act == Activation::kLeakyRelu) return z > 0 ? z : z * slope;
  if (act == Activation::kRelu) return z < 0 ? A(0) : z;  // a nan stays
  if (act == Activation::kTanh) return tanh(z);
  return z;
}

// g times the slope of the activation at z.
template <class A> inline __device__ A through_activation(Activation act, A g, A z, A slope) {
  if (act == Activation::kLeakyRelu) return z > 0 ? g : g * slope;
  if (act == Activation::kRelu) return z <= 0 ? A(0) : g;
  if (act == Activation::kTanh) {
    const A t = tanh(z);
    return g * (1 - t * t);
  }
  return g;
}

// Of one channel of one sample: xhat = (x - mean) * rstd, z = xhat * weight + bias.
template <class A> struct Coefficients {
  A mean, rstd, weight, bias;

  __device__ A normalised(A x) const { return (x - mean) * rstd; }
  __device__ A affine(A xhat) const { return xhat * weight + bias; }
};

template <class A> inline __device__ A rstd_of(A var, double eps) { return 1 / sqrt(var + A(eps)); }

// Where the statistics of a sample's channel stand.
inline __device__ std::int64_t statistic(const NormActShape& s, int n, int c) {
  return s.statistics == Statistics::kGiven ? c : n / (s.n / s.stat_groups) * s.c + c;
}

// What a sum over the values that share statistics is multiplied by to be their mean.
inline __device__ double unit_share(const NormActShape& s) {
  return 1 / (double(s.n / s.stat_groups) * double(s.h) * double(s.w));
}

// Params: NormActForward or NormActBackward. Without statistics.
template <class A, class Params> inline __device__ Coefficients<A> affine_of(const Params& p, int c) {
  Coefficients<A> k{0, 1, 1, A(-0.0)};  // adding -0 keeps the sign of every zero
  if (p.weight) k.weight = static_cast<const A*>(p.weight)[c];
  if (p.bias) k.bias = static_cast<const A*>(p.bias)[c];
  return k;
}

template <class A, class Params> inline __device__ Coefficients<A> coefficients_of(const Params& p, int n, int c) {
  Coefficients<A> k = affine_of<A>(p, c);
  if (p.shape.statistics != Statistics::kNone) {
    const std::int64_t place = statistic(p.shape, n, c);
    k.mean = static_cast<const A*>(p.mean)[place];
    k.rstd = rstd_of(static_cast<const A*>(p.var)[place], p.shape.eps);
  }
  return k;
}

// How many values of a batch there are, and what merging them into those before takes: the same for all channels.
template <class A> struct Batch {
  A fresh, inverse, share, weight;

  __device__ Batch(A before, A fresh)
      : fresh(fresh), inverse(fresh > 0 ? 1 / fresh : A(0)), share(fresh > 0 ? fresh / (before + fresh) : A(0)),
        weight(before * share) {}
};

// Moments of the values that one thread sees, a batch at a time. A batch is summed about its own mean, in two passes
// over registers; the mean of all is kept in double, since where it is large against the spread a float would not hold
// the distance of a batch from it.
template <class A> struct RunningMoments {
  double mean = 0;
  A m2 = 0;

  // values[i] counts where there[i].
  template <int kCount>
  __device__ void add(const Batch<A>& batch, const A (&values)[kCount], const bool (&there)[kCount]) {
    A sum = 0, off = 0, squares = 0;  // off: what rounding took from the centre
#pragma unroll
    for (int i = 0; i < kCount; ++i) sum += there[i] ? values[i] : A(0);
    const A centre = sum * batch.inverse;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const A d = there[i] ? values[i] - centre : A(0);
      off += d;
      squares += d * d;
    }
    if (batch.share == 1) mean = double(centre);  // the first: far from the 0 that mean starts at
    const A distance = A(double(centre) - mean) + off * batch.inverse;
    const A spread = squares - off * off * batch.inverse;  // which rounding may leave below 0
    m2 += (spread < 0 ? A(0) : spread) + distance * distance * batch.weight;
    mean += double(distance * batch.share);
  }
};

// Sums that the gradient needs: of g' and of g' * xhat.
struct GradientSums {
  double g, gx;
  __device__ GradientSums operator+(const GradientSums& other) const { return {g + other.g, gx + other.gx}; }
  __device__ GradientSums operator*(double factor) const { return {g * factor, gx * factor}; }
};
inline __device__ GradientSums shuffle_down(const GradientSums& value, int distance) {
  return {shuffle_down(value.g, distance), shuffle_down(value.gx, distance)};
}

}  // namespace torchp2p
