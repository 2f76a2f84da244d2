// Winograd's minimal filtering F(m x m, 3 x 3) for a convolution of stride 1:
//   y = output(input(x) * filter(weight)),
// where the product is one matrix product over the channels for each of the (m + 2)^2 frequencies of a tile of m x m
// results. Its gradient by x is such a convolution of the gradient of y; that by the weight is the adjoint:
//   grad_weight = filter^T(output^T(grad) * input(x)),
// the product now over the tiles. Definition: torchp2p/ops/_winograd.py.
#pragma once

#include <cstdint>

#include "torchp2p/dtype.h"
#include "torchp2p/status.h"
#include "torchp2p/strides.h"

namespace torchp2p {

struct WinogradShape {
  std::int64_t samples, inputs, outputs, height, width;  // of x
  std::int64_t pad;                                      // zeros around x; if negative, so many pixels are left out
  int m;               // pixels of the result along the side of a tile: 2 or 4
  DType dtype;         // of the images: float32, float64; bfloat16 with m = 2
  DType weight_dtype;  // the same, or float32 for bfloat16 images

  bool valid() const {
    const bool rounded = dtype == DType::kBFloat16;
    const bool typed = dtype == DType::kFloat32 || dtype == DType::kFloat64 || (rounded && m == 2);
    return samples > 0 && inputs > 0 && outputs > 0 && out_height() > 0 && out_width() > 0 && (m == 2 || m == 4) &&
           typed && (weight_dtype == dtype || (rounded && weight_dtype == DType::kFloat32));
  }
  std::int64_t out_height() const { return height + 2 * pad - 2; }
  std::int64_t out_width() const { return width + 2 * pad - 2; }
};

struct WinogradForward {
  WinogradShape shape;
  const void* x;       // (N, inputs, H, W)
  const void* weight;  // (outputs, inputs, 3, 3)
  const void* bias;    // (outputs,), of the weight's dtype; or null
  void* y;             // (N, outputs, H + 2 pad - 2, W + 2 pad - 2)
  Strides x_stride, weight_stride, y_stride;
  bool flip;  // the filters are turned by half a turn, as they are in the gradient of an input
};

struct WinogradWeight {
  WinogradShape shape;
  const void* x;      // (N, inputs, H, W)
  const void* grad;   // (N, outputs, H + 2 pad - 2, W + 2 pad - 2)
  void* grad_weight;  // (outputs, inputs, 3, 3)
  Strides x_stride, grad_stride, weight_stride;
};

Status winograd_forward_cpu(const WinogradForward& params);
Status winograd_weight_cpu(const WinogradWeight& params);

}  // namespace torchp2p
