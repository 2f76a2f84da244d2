// Loops that are unrolled for certain, so that arrays of registers which they index never go through memory.
#pragma once

#include <type_traits>
#include <utility>

namespace torchp2p {
namespace TORCHP2P_ISA {

// body(i) for every i below kCount, a constant each time.
template <class Body, int... kIndices>
inline void each(const Body& body, std::integer_sequence<int, kIndices...>) {
  (body(std::integral_constant<int, kIndices>{}), ...);
}
template <int kCount, class Body> inline void each(const Body& body) {
  each(body, std::make_integer_sequence<int, kCount>{});
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
