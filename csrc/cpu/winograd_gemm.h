// The matrix product between the transforms of Winograd's convolution, of blocks that are in the cache.
//
// sums (kRows, W) += a (kRows, K) * b (K, W), W being the channels of a panel: the sums stay in registers, a unit of
// `a` is spread over a register and a row of b is read as it lies. Sums start at zero here and are added to those of
// the blocks before at the end: short chains of roundings. Where the rows of `a` stand depends on what is summed over,
// so the two steps through it are known when compiling.
#pragma once

#include "each.h"
#include "winograd_layout.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

// `a` comes in `groups` of `units` terms, `next_group` apart; kRowStep and kStep are units between rows and terms. A
// function of its own, lest what the loops around it hold takes registers from the sums.
template <class Product, int kRowStep, int kStep>
[[gnu::noinline, gnu::flatten]] inline void multiply_block(const typename Product::Unit* a, std::int64_t next_group,
                                                           std::int64_t groups, std::int64_t units,
                                                           const typename Product::Unit* b,
                                                           typename Product::Value* sums, bool accumulate) {
  using A = typename Product::Value;
  constexpr int kWidth = kPanel<A>, kSums = kRows * kPanelRegisters;
  Vec<A> sum[kSums];
  each<kSums>([&](auto i) { sum[i] = Vec<A>{}; });
  for (std::int64_t group = 0; group < groups; ++group, a += next_group) {
    const typename Product::Unit* at = a;
    if constexpr (kStep == 1)
      prefetch<kFirstLevel>(a + kRows * kRowStep, kRows * kRowStep);  // the rows that are multiplied next
    for (std::int64_t k = 0; k < units; ++k, at += kStep, b += kWidth) {
      each<kRows>([&](auto i) {
        const auto all = Product::all(at + i * kRowStep);
        each<kPanelRegisters>(
            [&](auto j) { Product::add_product(sum[i * kPanelRegisters + j], all, b + j * kLanes<A>); });
      });
    }
  }
  if (accumulate) each<kSums>([&](auto i) { sum[i] += load(sums + i * kLanes<A>); });
  each<kSums>([&](auto i) { store(sums + i * kLanes<A>, sum[i]); });
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
