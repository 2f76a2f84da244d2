// Where pixels go in a padded image, and back: which pixel a place of the border repeats, and which places of the
// border repeat a pixel. Both directions gather, so neither needs atomics.
#pragma once

#include "torchp2p/norm_act.h"

namespace torchp2p {

// The position of [0, size) that position d of [0, size + 2 pad) shows; -1 where it shows zero.
inline __device__ int shown_at(int d, int size, int pad, PadMode mode) {
  const int i = d - pad;
  if (i >= 0 && i < size) return i;
  if (mode == PadMode::kZeros) return -1;
  if (mode == PadMode::kReplicate) return i < 0 ? 0 : size - 1;
  return i < 0 ? -i : 2 * (size - 1) - i;
}

// visit(d) for every position d of [0, size + 2 pad) that shows position i, its own first.
template <class Visit> inline __device__ void for_each_place(int i, int size, int pad, PadMode mode,
                                                             const Visit& visit) {
  visit(i + pad);
  if (pad == 0 || mode == PadMode::kZeros) return;
  if (mode == PadMode::kReflect) {
    if (i >= 1 && i <= pad) visit(pad - i);
    if (i >= size - 1 - pad && i <= size - 2) visit(pad + 2 * (size - 1) - i);
    return;
  }
  if (i == 0)
    for (int d = 0; d < pad; ++d) visit(d);
  if (i == size - 1)
    for (int d = pad + size; d < size + 2 * pad; ++d) visit(d);
}

}  // namespace torchp2p
