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
  using A = Accumulator<T>;
  const WinogradShape& shape = p.shape;
  const Strides& s = p.weight_stride;
  const Image<const T> x{
      static_cast<const T*>(p.x), p.x_stride, shape.inputs, shape.height, shape.width, shape.pad, shape.pad};
  const Filters<const W> filters{static_cast<const W*>(p.weight), shape.outputs, shape.inputs, s.n, s.c, s.h, s.w};
  const Image<T> y{static_cast<T*>(p.y), p.y_stride, shape.outputs, shape.out_height(), shape.out_width(), 0, 0};
  const PanelProduct<T, W, InputOf<F>, Parts::kOfTerms> product(shape.samples, {y.height, y.width}, x, filters);
  return product.run([&](const A* sums, std::int64_t tiles, std::int64_t panel, std::int64_t sample, std::int64_t row,
                         std::int64_t tile, const Strip<A>& strip) {
    store_results<F>(sums, tiles, tile, panel, static_cast<const W*>(p.bias), y, sample, row, strip);
  });
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
