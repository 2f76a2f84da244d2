// Output channels in tiles of registers, and the rows of dense channels that an output row sees: what the forward and
// the backward of label_conv2d share.
#pragma once

#include <type_traits>

#include "label_conv2d_rows.h"

namespace torchp2p {
namespace TORCHP2P_ISA {
namespace {

constexpr int kTileRegisters = 4;                  // output channels in a tile, in registers
constexpr std::int64_t kChunk = 32;                // pixels that are turned over or convolved at a time
constexpr int kPixels = 4;                         // pixels of a row that share a load of the dense weights
constexpr int kTaps = kVectorBytes == 64 ? 4 : 2;  // taps of the dense weight gradient that share a load of grad_y

// body(number of registers as a constant).
template <class Body> inline void with_registers(std::int64_t registers, const Body& body) {
  switch (registers) {
    case 1: return body(std::integral_constant<int, 1>{});
    case 2: return body(std::integral_constant<int, 2>{});
    case 3: return body(std::integral_constant<int, 3>{});
    default: return body(std::integral_constant<int, kTileRegisters>{});
  }
}

// Output channels, cut into tiles; each is padded with zeros to whole registers.
template <class A> struct Tiles {
  std::int64_t channels, count;

  explicit Tiles(std::int64_t c) : channels(c), count((c + kTile - 1) / kTile) {}
  std::int64_t begin(std::int64_t tile) const { return tile * kTile; }
  std::int64_t size(std::int64_t tile) const { return channels - begin(tile) < kTile ? channels - begin(tile) : kTile; }
  std::int64_t registers(std::int64_t tile) const { return (size(tile) + kLanes<A> - 1) / kLanes<A>; }
  std::int64_t padded() const { return (channels + kLanes<A> - 1) / kLanes<A> * kLanes<A>; }

  static constexpr std::int64_t kTile = kTileRegisters * kLanes<A>;
};

template <class A, int kR> inline void load_tile(const A* from, Vec<A> (&to)[kR]) {
  for (int r = 0; r < kR; ++r) to[r] = load(from + r * kLanes<A>);
}
template <class A, int kR> inline void add_tile(const A* from, Vec<A> (&to)[kR]) {
  for (int r = 0; r < kR; ++r) to[r] += load(from + r * kLanes<A>);
}
template <class A, int kR> inline void store_tile(A* to, const Vec<A> (&from)[kR]) {
  for (int r = 0; r < kR; ++r) store(to + r * kLanes<A>, from[r]);
}

// The rows of the dense channels that an output row sees: one per channel, kernel row and kernel column.
template <class A>
std::int64_t find_taps(const LabelConv2dShape& s, const InputRows<A>& rows, std::int64_t n, std::int64_t y,
                       const A** taps) {
  std::int64_t count = 0;
  for (std::int64_t d = 0; d < s.dense_channels; ++d) {
    for (std::int64_t ky = 0; ky < s.kernel_h; ++ky) {
      const A* row = rows.dense(rows.row(n, y * s.stride_h + ky), d);
      for (std::int64_t kx = 0; kx < s.kernel_w; ++kx) taps[count++] = row + kx;
    }
  }
  return count;
}

}  // namespace
}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
