// The flat rows of a tensor with any strides.
//
// A "flat row" is one image row as it lies in memory: W values (NCHW, one channel) or W*C (NHWC). Its "cell" is
// the number of values per pixel: 1 or C.
#pragma once

#include <cstdint>

#include "torchp2p/strides.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

// In place where the values of a row are dense, else packed.
template <class T> class Rows {
 public:
  Rows(const void* base, const Strides& strides, std::int64_t height, std::int64_t width, std::int64_t cell)
      : base_(static_cast<const T*>(base)), strides_(strides), height_(height), width_(width), cell_(cell) {
    const bool pixels_dense = width == 1 || strides.w == cell;
    const bool values_dense = cell == 1 || strides.c == 1;
    packed_ = base_ != nullptr && !(pixels_dense && values_dense);
  }

  // Whether consecutive rows follow each other without a gap, so that they can be taken as one.
  bool joined() const { return base_ == nullptr || (!packed_ && (height_ == 1 || strides_.h == width_ * cell_)); }
  // Values of the buffer that a thread must offer to row().
  std::int64_t buffer_size() const { return packed_ ? width_ * cell_ : 0; }

  // Row h; `buffer` takes it where it must be packed. Null if there is no tensor.
  const T* row(std::int64_t n, std::int64_t c, std::int64_t h, T* buffer) const {
    if (base_ == nullptr) return nullptr;
    const T* start = base_ + n * strides_.n + c * strides_.c + h * strides_.h;
    if (!packed_) return start;
    for (std::int64_t i = 0; i < width_; ++i) {
      for (std::int64_t k = 0; k < cell_; ++k) buffer[i * cell_ + k] = start[i * strides_.w + k * strides_.c];
    }
    return buffer;
  }

 private:
  const T* base_;
  Strides strides_;
  std::int64_t height_, width_, cell_;
  bool packed_;
};

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
