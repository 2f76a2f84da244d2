// Winograd's minimal filtering F(m x m, r x r) of a convolution, or of the parts of one:
//   y = output(sum over parts of input(part of x) * filter(part of weight)),
// where a product is one matrix product over the channels for each of the frequencies of a tile of m x m results. Its
// gradients are made of the adjoints of the same transforms:
//   grad_x = input^T(output^T(grad) * filter(weight)),  grad_weight = filter^T(output^T(grad) * input(x)),
// with products over the outputs and over the tiles. Of stride 1 there is one part, r is the kernel's side, and tiles
// of 6 x 6 pixels have 46 frequencies. Of stride 2 there are four, the even and the odd rows and columns of x with
// theirs of the kernel, and r = 2: tiles of 4 x 4 pixels have 4 x 4. Definition: torchp2p/ops/_winograd.py.
#pragma once

#include <cstdint>

#include "torchp2p/dtype.h"
#include "torchp2p/status.h"
#include "torchp2p/strides.h"

namespace torchp2p {

struct WinogradShape {
  std::int64_t samples, inputs, outputs, height, width;  // of x
  int kernel, stride;                                    // 3 or 4, 1 or 2
  std::int64_t pad;                                      // zeros around x
  DType dtype;                                           // of the images: float32, float64 or bfloat16
  DType weight_dtype;                                    // the same, or float32 for bfloat16 images

  bool valid() const {
    const bool known = (kernel == 3 || kernel == 4) && (stride == 1 || stride == 2);
    const bool rounded = dtype == DType::kBFloat16;
    const bool typed = dtype == DType::kFloat32 || dtype == DType::kFloat64 || rounded;
    return samples > 0 && inputs > 0 && outputs > 0 && pad >= 0 && known && out_height() > 0 && out_width() > 0 &&
           typed && (weight_dtype == dtype || (rounded && weight_dtype == DType::kFloat32));
  }
  std::int64_t out_height() const { return (height + 2 * pad - kernel) / stride + 1; }
  std::int64_t out_width() const { return (width + 2 * pad - kernel) / stride + 1; }
};

struct WinogradForward {
  WinogradShape shape;
  const void* x;       // (N, inputs, H, W)
  const void* weight;  // (outputs, inputs, kernel, kernel)
  const void* bias;    // (outputs,), of the weight's dtype; or null
  void* y;             // (N, outputs, out_height, out_width)
  Strides x_stride, weight_stride, y_stride;
};

struct WinogradInput {
  WinogradShape shape;
  const void* grad;    // as y
  const void* weight;  // (outputs, inputs, kernel, kernel)
  void* grad_x;        // (N, inputs, H, W); pixels that no window reaches are left as they are
  Strides grad_stride, weight_stride, x_stride;
};

struct WinogradWeight {
  WinogradShape shape;
  const void* grad;   // as y
  const void* x;      // (N, inputs, H, W)
  void* grad_weight;  // (outputs, inputs, kernel, kernel)
  Strides grad_stride, x_stride, weight_stride;
};

Status winograd_forward_cpu(const WinogradForward& params);
Status winograd_input_cpu(const WinogradInput& params);
Status winograd_weight_cpu(const WinogradWeight& params);

}  // namespace torchp2p
