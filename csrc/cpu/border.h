// Where a row (or column) of an image goes in its padded copy: to its own place, and to the border places
// that repeat it. The same map read backwards gathers the gradient, so neither direction needs atomics.
#pragma once

#include <cstdint>

#include "torchp2p/norm_act.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

// visit(d) for every border position d in [0, size + 2 pad) that repeats position i of [0, size).
template <class Visit>
inline void for_each_repeat(std::int64_t i, std::int64_t size, std::int64_t pad, PadMode mode, const Visit& visit) {
  if (mode == PadMode::kReflect) {
    if (i >= 1 && i <= pad) visit(pad - i);
    if (i >= size - 1 - pad && i <= size - 2) visit(pad + 2 * (size - 1) - i);
  } else if (mode == PadMode::kReplicate) {
    if (i == 0)
      for (std::int64_t d = 0; d < pad; ++d) visit(d);
    if (i == size - 1)
      for (std::int64_t d = 0; d < pad; ++d) visit(pad + size + d);
  }
}

// visit(i) for the positions that the border may repeat: those within `pad` of an end.
template <class Visit>
inline void for_each_near_border(std::int64_t size, std::int64_t pad, const Visit& visit) {
  const std::int64_t first_end = pad + 1 < size ? pad + 1 : size;
  const std::int64_t last_begin = size - 1 - pad > first_end ? size - 1 - pad : first_end;
  for (std::int64_t i = 0; i < first_end; ++i) visit(i);
  for (std::int64_t i = last_begin; i < size; ++i) visit(i);
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
