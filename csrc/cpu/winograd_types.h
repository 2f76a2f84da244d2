// Which types and which tiles an entry point of Winograd's convolution was called for.
#pragma once

#include <type_traits>

#include "torchp2p/winograd.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

// body(a zero of the images' dtype, one of the weight's, the side of a tile).
template <class Body> inline Status with_types(const WinogradShape& shape, const Body& body) {
  constexpr std::integral_constant<int, 2> two{};
  constexpr std::integral_constant<int, 4> four{};
  if (!shape.valid()) return Status::kBadArgument;
  const bool small = shape.m == 2;
  switch (shape.dtype) {
    case DType::kFloat32: return small ? body(float{}, float{}, two) : body(float{}, float{}, four);
    case DType::kFloat64: return small ? body(double{}, double{}, two) : body(double{}, double{}, four);
    case DType::kBFloat16:
      return shape.weight_dtype == DType::kFloat32 ? body(BFloat16{}, float{}, two) : body(BFloat16{}, BFloat16{}, two);
    default: return Status::kBadArgument;
  }
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
