// Distances in elements between neighbours along N, C, H and W. Inputs may have any strides, 0 included.
#pragma once

#include <cstdint>

namespace torchp2p {

struct Strides {
  std::int64_t n, c, h, w;
};

}  // namespace torchp2p
