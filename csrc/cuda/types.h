// Element types as kernels compute with them, and the way from a DType to one.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "torchp2p/dtype.h"
#include "torchp2p/status.h"

namespace torchp2p {

inline __device__ float to_accumulator(float v) { return v; }
inline __device__ double to_accumulator(double v) { return v; }
inline __device__ float to_accumulator(__half v) { return __half2float(v); }
inline __device__ float to_accumulator(__nv_bfloat16 v) { return __bfloat162float(v); }

// Rounds to nearest, ties to even, as torch does.
template <class T> __device__ T from_accumulator(Accumulator<T> v) { return v; }
template <> inline __device__ __half from_accumulator<__half>(float v) { return __float2half_rn(v); }
template <> inline __device__ __nv_bfloat16 from_accumulator<__nv_bfloat16>(float v) { return __float2bfloat16_rn(v); }

template <class T> struct Type {
  using type = T;
};

// body(Type<T>{}) for the T of the dtype.
template <class Body> Status with_type(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kFloat32: return body(Type<float>{});
    case DType::kBFloat16: return body(Type<__nv_bfloat16>{});
    case DType::kFloat16: return body(Type<__half>{});
    case DType::kFloat64: return body(Type<double>{});
  }
  return Status::kBadArgument;
}

}  // namespace torchp2p
