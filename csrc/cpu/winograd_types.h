// Which types and which scheme an entry point of Winograd's convolution was called for.
#pragma once

#include "torchp2p/winograd.h"
#include "winograd_matrices.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

template <class F, class Body> inline Status with_dtypes(const WinogradShape& shape, F scheme, const Body& body) {
  if (shape.dtype == DType::kFloat32) return body(float{}, float{}, scheme);
  if (shape.dtype == DType::kFloat64) return body(double{}, double{}, scheme);
  if (shape.weight_dtype == DType::kFloat32) return body(BFloat16{}, float{}, scheme);
  return body(BFloat16{}, BFloat16{}, scheme);
}

// body(a zero of the images' dtype, one of the weight's, the scheme).
template <class Body> inline Status with_types(const WinogradShape& shape, const Body& body) {
  if (!shape.valid()) return Status::kBadArgument;
  if (shape.kernel == 3 && shape.stride == 1) return with_dtypes(shape, Scheme<4, 3, 3>{}, body);
  if (shape.kernel == 3) return with_dtypes(shape, Scheme<3, 2, 3>{}, body);
  if (shape.stride == 1) return with_dtypes(shape, Scheme<3, 4, 4>{}, body);
  return with_dtypes(shape, Scheme<3, 2, 4>{}, body);
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
