// Winograd's minimal filtering F(m x m, 3 x 3) for a convolution of stride 1:
//   y = output(input(x) * filter(weight)),
// where the product is one matrix product over the channels for each of the (m + 2)^2 frequencies of a tile of m x m
// results. Its gradients are made of the adjoints of the same transforms:
//   grad_x = input^T(output^T(grad) * filter(weight)),  grad_weight = filter^T(output^T(grad) * input(x)),
// with products over the outputs and over the tiles. Definition: torchp2p/ops/_winograd.py.
#pragma once

#include <cstdint>

#include "torchp2p/dtype.h"
#include "torchp2p/status.h"
#include "torchp2p/strides.h"

namespace torchp2p {

struct WinogradShape {
  std::int64_t samples, inputs, outputs, height, width;  // of x
  std::int64_t pad;                                      // zeros around x
  int m;                                                 // pixels of the result along the side of a tile: 2 or 4
  DType dtype;                                           // of the images: float32, float64; bfloat16 with m = 2
  DType weight_dtype;                                    // the same, or float32 for bfloat16 images

  bool valid() const {
    const bool rounded = dtype == DType::kBFloat16;
    const bool typed = dtype == DType::kFloat32 || dtype == DType::kFloat64 || (rounded && m == 2);
    return samples > 0 && inputs > 0 && outputs > 0 && pad >= 0 && out_height() > 0 && out_width() > 0 &&
           (m == 2 || m == 4) && typed && (weight_dtype == dtype || (rounded && weight_dtype == DType::kFloat32));
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
};

struct WinogradInput {
  WinogradShape shape;
  const void* grad;    // as y
  const void* weight;  // (outputs, inputs, 3, 3)
  void* grad_x;        // (N, inputs, H, W)
  Strides grad_stride, weight_stride, x_stride;
};

struct WinogradWeight {
  WinogradShape shape;
  const void* grad;   // as y
  const void* x;      // (N, inputs, H, W)
  void* grad_weight;  // (outputs, inputs, 3, 3)
  Strides grad_stride, x_stride, weight_stride;
};

Status winograd_forward_cpu(const WinogradForward& params);
Status winograd_input_cpu(const WinogradInput& params);
Status winograd_weight_cpu(const WinogradWeight& params);

}  // namespace torchp2p
