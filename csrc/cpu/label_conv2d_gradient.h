// The incoming gradient of label_conv2d, read a few pixels at a time from any layout and dtype.
#pragma once

#include "torchp2p/norm_act.h"
#include "transpose.h"
#include "vec.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

// `size` values `step` apart, then zeros up to `padded`, a multiple of the register.
template <class T, class A = Accumulator<T>>
inline void read_values(const T* from, std::int64_t step, std::int64_t size, A* to, std::int64_t padded) {
  std::int64_t i = 0;
  if (step == 1) {
    for (; i + kLanes<A> <= size; i += kLanes<A>) store(to + i, load(from + i));
    if (i < size) store(to + i, load_some(from + i, static_cast<int>(size - i), Vec<A>{}));
    i = (size + kLanes<A> - 1) / kLanes<A> * kLanes<A>;
  } else {
    for (; i < size; ++i) to[i] = load_some(from + i * step, 1, Vec<A>{})[0];
  }
  for (; i < padded; ++i) to[i] = 0;
}

template <class T, class A = Accumulator<T>> inline void write_values(const A* from, T* to, std::int64_t size) {
  std::int64_t i = 0;
  for (; i + kLanes<A> <= size; i += kLanes<A>) store(to + i, load(from + i));
  if (i < size) store_some(to + i, load(from + i), static_cast<int>(size - i));
}

// Some pixels of a row, some channels: what is read. Both are padded with zeros, to multiples of the register.
struct Patch {
  std::int64_t n, y, x, pixels, padded_pixels, channel, channels, padded_channels;
};

template <class T> class GradientRows {
  using A = Accumulator<T>;

 public:
  GradientRows(const void* base, const Strides& strides) : base_(static_cast<const T*>(base)), s_(strides) {}

  // to[pixel][channel]. `scratch` holds a patch, as in planes().
  void pixels(const Patch& p, A* to, A* scratch) const {
    if (s_.c == 1) {
      read_pixels(p, to);
    } else {
      read_planes(p, scratch);
      transpose(scratch, p.padded_pixels, to, p.padded_channels, p.padded_channels, p.padded_pixels);
    }
  }

  // to[channel][pixel].
  void planes(const Patch& p, A* to, A* scratch) const {
    if (s_.c == 1 && s_.w != 1) {
      read_pixels(p, scratch);
      transpose(scratch, p.padded_channels, to, p.padded_pixels, p.padded_pixels, p.padded_channels);
    } else {
      read_planes(p, to);
    }
  }

 private:
  const T* at(const Patch& p) const { return base_ + p.n * s_.n + p.channel * s_.c + p.y * s_.h + p.x * s_.w; }

  void read_pixels(const Patch& p, A* to) const {
    for (std::int64_t i = 0; i < p.padded_pixels; ++i) {
      const bool real = i < p.pixels;
      read_values(real ? at(p) + i * s_.w : at(p), 1, real ? p.channels : 0, to + i * p.padded_channels,
                  p.padded_channels);
    }
  }
  void read_planes(const Patch& p, A* to) const {
    for (std::int64_t o = 0; o < p.padded_channels; ++o) {
      const bool real = o < p.channels;
      read_values(real ? at(p) + o * s_.c : at(p), s_.w, real ? p.pixels : 0, to + o * p.padded_pixels,
                  p.padded_pixels);
    }
  }

  const T* base_;
  const Strides s_;
};

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
