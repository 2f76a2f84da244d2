// The gradient of the input of Winograd's convolution: the adjoints of its transforms, about the same product with
// inputs and outputs changed over.
//
// Memory:   the gradients of y and of x once; the weight once for each chunk of tiles and each part.
// Parallel: rows of tiles x registers of channels while the gradient of y is transformed; then panels of input
//           channels and parts, each of which transforms its filters, multiplies, and adds up its tiles, which overlap,
//           from top to bottom.
#include "isa.h"
#include "winograd_product.h"
#include "winograd_types.h"

namespace torchp2p {
namespace TORCHP2P_ISA {
namespace {

template <class T, class W, class F> Status input(const WinogradInput& p) {
  using A = Accumulator<T>;
  const WinogradShape& shape = p.shape;
  const Strides& s = p.weight_stride;
  const Image<const T> grad{
      static_cast<const T*>(p.grad), p.grad_stride, shape.outputs, shape.out_height(), shape.out_width(), 0, 0};
  const Filters<const W> filters{static_cast<const W*>(p.weight), shape.inputs, shape.outputs, s.c, s.n, s.h, s.w};
  const Image<T> grad_x{
      static_cast<T*>(p.grad_x), p.x_stride, shape.inputs, shape.height, shape.width, shape.pad, shape.pad};
  const TileGrid<F> grid(shape.out_height(), shape.out_width());
  const PanelProduct<T, W, OutputOf<F>, Parts::kOfResults> product(shape.samples, grid, grad, filters);
  const Buffer<A> unfinished(round_up(shape.inputs, kPanel<A>) / kLanes<A> * F::kParts,
                             Strip<A>::template row_size<F>(grid.columns) * F::kOverlap);
  if (!unfinished.ok()) return Status::kOutOfMemory;
  return product.run([&](const A* sums, std::int64_t tiles, std::int64_t panel, std::int64_t sample, std::int64_t row,
                         std::int64_t tile, const Strip<A>& strip) {
    const Image<T> part = part_of<F>(grad_x, static_cast<int>(panel % F::kParts));
    for (int v = 0; v < kPanelRegisters; ++v) {
      add_tiles<F>(sums + v * kLanes<A>, tiles, tile, panel / F::kParts * kPanel<A> + v * kLanes<A>, grid, part, sample,
                   row, unfinished.piece(panel * kPanelRegisters + v), strip);
    }
  });
}

}  // namespace

Status winograd_input(const WinogradInput& p) {
  return with_types(p.shape, [&](auto image, auto weight, auto scheme) {
    return input<decltype(image), decltype(weight), decltype(scheme)>(p);
  });
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p

TORCHP2P_CPU_ENTRY_BFLOAT16(winograd_input, WinogradInput)
