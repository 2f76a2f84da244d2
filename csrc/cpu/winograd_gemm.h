// The matrix product between the transforms of Winograd's convolution, of blocks that are in the cache.
//
// sums (kRows, W) += a (kRows, K) * b (K, W), W being the channels of a panel: the sums stay in registers, a unit of
// `a` is spread over a register and a row of b is read as it lies. Sums start at zero here and are added to those of
// the blocks before at the end: short chains of roundings. Where the rows of `a` stand depends on what is summed over,
// so the two steps through it are known when compiling.
#pragma once

#include "winograd_layout.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

// `a` comes in `groups` of `units` terms, `next_group` apart; kRowStep and kStep are units between rows and terms.
template <class Product, int kRowStep, int kStep>
inline void multiply_block(const typename Product::Unit* a, std::int64_t next_group, std::int64_t groups,
                           std::int64_t units, const typename Product::Unit* b, typename Product::Value* sums,
                           bool accumulate) {
  using A = typename Product::Value;
  constexpr int kWidth = kPanel<A>;
  Vec<A> sum[kRows][kPanelRegisters] = {};
  for (std::int64_t group = 0; group < groups; ++group, a += next_group) {
    const typename Product::Unit* at = a;
    if constexpr (kStep == 1)
      prefetch<kFirstLevel>(a + kRows * kRowStep, kRows * kRowStep);  // the rows that are multiplied next
    for (std::int64_t k = 0; k < units; ++k, at += kStep, b += kWidth) {
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) {
        const auto all = Product::all(at + i * kRowStep);
#pragma GCC unroll 2
        for (int j = 0; j < kPanelRegisters; ++j) Product::add_product(sum[i][j], all, b + j * kLanes<A>);
      }
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kPanelRegisters; ++j) {
      A* to = sums + i * kWidth + j * kLanes<A>;
      store(to, accumulate ? load(to) + sum[i][j] : sum[i][j]);
    }
  }
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
