// The transforms of Winograd's minimal filtering F(m x m, 3 x 3) for a convolution of stride 1, and their adjoints.
// Between them stands one matrix product for each of the (m + 2)^2 frequencies, which the caller takes:
//   output(input(x) * filter(weight))   with   V (F, T, C) * U (F, O, C)^T = M (F, T, O),
// for T tiles of m x m pixels of the result. Definition: torchp2p/ops/_winograd.py.
#pragma once

#include <cstdint>

#include "torchp2p/dtype.h"
#include "torchp2p/status.h"
#include "torchp2p/strides.h"

namespace torchp2p {

// Tiles of the results of `samples` images of height x width pixels with a border of `pad` zeros around them.
struct WinogradTiles {
  std::int64_t samples, channels, height, width, pad;
  int m;        // pixels of the result along the side of a tile: 2 or 4
  DType dtype;  // of everything: float32 or float64

  bool valid() const {
    return samples > 0 && channels > 0 && pad >= 0 && out_height() > 0 && out_width() > 0 && (m == 2 || m == 4);
  }
  std::int64_t out_height() const { return height + 2 * pad - 2; }
  std::int64_t out_width() const { return width + 2 * pad - 2; }
  std::int64_t rows() const { return (out_height() + m - 1) / m; }
  std::int64_t columns() const { return (out_width() + m - 1) / m; }
  std::int64_t count() const { return samples * rows() * columns(); }
};

// From an image to tiles of frequencies (F, T, C), or back; which image, and which way, says the entry point.
struct WinogradImage {
  WinogradTiles tiles;
  void* image;  // (N, C, H, W), of the convolution's input or of its result; read or written
  void* frequencies;
  const void* bias;  // (C,), added to a result that is written; or null
  Strides stride;    // of the image
};

// From filters (O, C, 3, 3) to frequencies (F, O, C), or back.
struct WinogradFilter {
  std::int64_t outputs, inputs;
  int m;
  DType dtype;
  void* weight;
  void* frequencies;
  Strides stride;  // of the weight
};

Status winograd_input_cpu(const WinogradImage& params);
Status winograd_input_adjoint_cpu(const WinogradImage& params);
Status winograd_output_cpu(const WinogradImage& params);
Status winograd_output_adjoint_cpu(const WinogradImage& params);
Status winograd_filter_cpu(const WinogradFilter& params);
Status winograd_filter_adjoint_cpu(const WinogradFilter& params);

}  // namespace torchp2p
