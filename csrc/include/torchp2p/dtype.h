// Element types as they lie in memory. Arithmetic on them happens in float (double for float64).
#pragma once

#include <cstdint>

namespace torchp2p {

// The codes are those of torchp2p/ops/_native.py.
enum class DType : int { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2, kFloat64 = 3 };

struct BFloat16 {
  std::uint16_t bits;
};

struct Float16 {
  std::uint16_t bits;
};

// The type that values of T are computed and summed in.
template <class T> struct AccumulatorOf {
  using type = float;
};
template <> struct AccumulatorOf<double> {
  using type = double;
};
template <class T> using Accumulator = typename AccumulatorOf<T>::type;

}  // namespace torchp2p
