// Winograd's convolution.
//
// Memory:   x and y once; the weight once for each chunk of tiles.
// Parallel: rows of tiles x registers of channels while x is transformed; then panels of output channels, each of which
//           transforms its filters, multiplies, and transforms its sums back.
#include "isa.h"
#include "winograd_product.h"
#include "winograd_types.h"

namespace torchp2p {
namespace TORCHP2P_ISA {
namespace {

template <class T, class W, class F> Status forward(const WinogradForward& p) {
  const WinogradShape& shape = p.shape;
  const Strides& s = p.weight_stride;
  return convolve<F, T, W>(
      shape.samples, shape.stride,
      {static_cast<const T*>(p.x), p.x_stride, shape.inputs, shape.height, shape.width, shape.pad, shape.pad},
      {static_cast<const W*>(p.weight), shape.outputs, shape.inputs, s.n, s.c, s.h, s.w}, static_cast<const W*>(p.bias),
      {static_cast<T*>(p.y), p.y_stride, shape.outputs, shape.out_height(), shape.out_width(), 0, 0});
}

}  // namespace

Status winograd_forward(const WinogradForward& p) {
  return with_types(p.shape, [&](auto image, auto weight, auto scheme) {
    return forward<decltype(image), decltype(weight), decltype(scheme)>(p);
  });
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p

TORCHP2P_CPU_ENTRY_BFLOAT16(winograd_forward, WinogradForward)
