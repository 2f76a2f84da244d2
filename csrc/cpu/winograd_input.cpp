// The gradient of the input of Winograd's convolution: the adjoints of its transforms, about the same product with
// inputs and outputs changed over.
//
// Memory:   the gradients of y and of x once; the weight once for each chunk of tiles.
// Parallel: rows of tiles x registers of channels while the gradient of y is transformed; then panels of input
// channels,
//           each of which transforms its filters, multiplies, and adds up its tiles, which overlap, from top to bottom.
#include "isa.h"
#include "winograd_product.h"
#include "winograd_types.h"

namespace torchp2p {
namespace TORCHP2P_ISA {
namespace {

template <class T, class W, int kM> Status input(const WinogradInput& p) {
  using A = Accumulator<T>;
  const WinogradShape& shape = p.shape;
  const Strides& s = p.weight_stride;
  const PanelProduct<T, W, kM, Transposed<OutputOf<kM>>> product(
      shape, {static_cast<const T*>(p.grad), p.grad_stride, shape.outputs, shape.out_height(), shape.out_width(), 0},
      {static_cast<const W*>(p.weight), shape.inputs, shape.outputs, s.c, s.n, s.h, s.w});
  const ImageOut<T> grad_x{static_cast<T*>(p.grad_x), p.x_stride, shape.inputs, shape.height, shape.width, shape.pad};
  const TileGrid<kM> grid(shape);
  const Buffer<A> unfinished(round_up(shape.inputs, kPanel<A>) / kLanes<A>, Strip<A>::row_size(grid.columns, kM) * 2);
  if (!unfinished.ok()) return Status::kOutOfMemory;
  return product.run([&](const A* sums, std::int64_t tiles, std::int64_t panel, std::int64_t sample, std::int64_t row,
                         std::int64_t tile, const Strip<A>& strip) {
    for (int v = 0; v < kPanelRegisters; ++v) {
      const std::int64_t of = panel * kPanelRegisters + v;
      add_tiles<kM>(sums + v * kLanes<A>, tiles, tile, of * kLanes<A>, grid, grad_x, sample, row, unfinished.piece(of),
                    strip);
    }
  });
}

}  // namespace

Status winograd_input(const WinogradInput& p) {
  return with_types(
      p.shape, [&](auto image, auto weight, auto m) { return input<decltype(image), decltype(weight), m.value>(p); });
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p

TORCHP2P_CPU_ENTRY_BFLOAT16(winograd_input, WinogradInput)
