// The values of a tensor with any strides, taken in an order that somebody else's memory dictates.
#pragma once

#include <cstdint>

namespace torchp2p {
namespace TORCHP2P_ISA {

// A tensor seen in the order of a dense one: dimensions from the slowest to the fastest of that order, those of
// size 1 left out, and neighbours that this tensor walks through without a break made one.
template <int kMaxDims> struct StridedWalk {
  int dims = 1;
  std::int64_t size[kMaxDims] = {1}, stride[kMaxDims] = {1};

  StridedWalk(int given, const std::int64_t* shape, const std::int64_t* order, const std::int64_t* strides) {
    int sorted[kMaxDims], kept = 0;
    for (int d = 0; d < given; ++d) {
      if (shape[d] == 1) continue;
      int place = kept++;
      for (; place > 0 && order[sorted[place - 1]] < order[d]; --place) sorted[place] = sorted[place - 1];
      sorted[place] = d;
    }
    for (int i = 0; i < kept; ++i) {
      const std::int64_t n = shape[sorted[i]], s = strides[sorted[i]];
      if (i == 0) {
        size[0] = n;
        stride[0] = s;
      } else if (stride[dims - 1] == n * s) {
        size[dims - 1] *= n;
        stride[dims - 1] = s;
      } else {
        size[dims] = n;
        stride[dims++] = s;
      }
    }
  }

  // The `count` values from place `begin` of the order: where they lie if side by side, else packed into `buffer`.
  template <class T> const T* values(const T* base, std::int64_t begin, std::int64_t count, T* buffer) const {
    const int last = dims - 1;
    std::int64_t index[kMaxDims], offset = 0;
    for (int d = last; d >= 0; --d) {
      index[d] = begin % size[d];
      begin /= size[d];
      offset += index[d] * stride[d];
    }
    if (stride[last] == 1 && index[last] + count <= size[last]) return base + offset;
    for (std::int64_t packed = 0; packed < count;) {
      const std::int64_t left = size[last] - index[last], run = left < count - packed ? left : count - packed;
      for (std::int64_t i = 0; i < run; ++i) buffer[packed + i] = base[offset + i * stride[last]];
      packed += run;
      offset -= index[last] * stride[last];  // to the start of the next row
      index[last] = 0;
      for (int d = last - 1; d >= 0; --d) {
        offset += stride[d];
        if (++index[d] < size[d]) break;
        offset -= size[d] * stride[d];
        index[d] = 0;
      }
    }
    return buffer;
  }
};

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
