// Rows of an image with any strides, to and from registers that hold as many channels of one pixel.
#pragma once

#include <utility>

#include "transpose.h"
#include "winograd_layout.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

// Values that lie `stride` apart, the first n of a register; the others are 0.
template <class T> inline Vec<Accumulator<T>> gather(const T* p, std::int64_t stride, std::int64_t n) {
  constexpr int kCount = kLanes<Accumulator<T>>;
  if (stride == 1 && n == kCount) return load(p);
  T lanes[kCount] = {};
  for (int i = 0; i < n; ++i) lanes[i] = p[i * stride];
  return load(lanes);
}

// To every second place; the others are another thread's. False where there is no instruction for it.
template <class T> inline bool store_every_second(T*, Vec<Accumulator<T>>) { return false; }
#if defined(__AVX512BW__)
inline bool store_every_second(float* p, Vec<float> v) {
  _mm512_mask_storeu_ps(p, 0x5555, __builtin_shufflevector(v, v, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7));
  _mm512_mask_storeu_ps(p + kFloats, 0x5555,
                        __builtin_shufflevector(v, v, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15));
  return true;
}
inline bool store_every_second(BFloat16* p, Vec<float> v) {
  BFloat16 values[kFloats];
  store(values, v);
  _mm512_mask_storeu_epi16(p, 0x55555555, reinterpret_cast<__m512i>(load_wide(values)));
  return true;
}
#endif

template <class T> inline void scatter(T* p, std::int64_t stride, std::int64_t n, Vec<Accumulator<T>> v) {
  constexpr int kCount = kLanes<Accumulator<T>>;
  if (stride == 1 && n == kCount) return store(p, v);
  if (stride == 2 && n == kCount && store_every_second(p, v)) return;
  T lanes[kCount];
  store(lanes, v);
  for (int i = 0; i < n; ++i) p[i * stride] = lanes[i];
}

// Every second value of two registers' worth.
template <class A, int... kIndices>
inline Vec<A> every_second(const A* p, std::integer_sequence<int, kIndices...>) {
  return __builtin_shufflevector(load(p), load(p + kLanes<A>), (2 * kIndices)...);
}
template <class A> inline Vec<A> every_second(const A* p) {
  return every_second(p, std::make_integer_sequence<int, kLanes<A>>{});
}
inline Vec<float> every_second(const BFloat16* p) {
  U32 pairs;
  std::memcpy(&pairs, p, sizeof pairs);
  return reinterpret_cast<Vec<float>>(pairs << 16);
}

// How many of `count` are left from `at` on, at most a register of them.
template <class A> inline std::int64_t lanes_from(std::int64_t at, std::int64_t count) {
  const std::int64_t left = count - at;
  return left < 0 ? 0 : left < kLanes<A> ? left : kLanes<A>;
}

// What `turned` of the two functions below must hold for rows of `count` pixels.
template <class A> inline std::int64_t turned_size(std::int64_t count) {
  return kLanes<A> * round_up(count, kLanes<A>);
}

// to (count, lanes) = the first `channels` of a register of channels, the others 0. Up to 3 pixels more are written.
template <class T>
inline void load_pixels(const T* from, std::int64_t channel, std::int64_t pixel, std::int64_t channels,
                        std::int64_t count, Accumulator<T>* to, Accumulator<T>* turned) {
  using A = Accumulator<T>;
  if (channel == 1) {
    for (std::int64_t j = 0; j < count; ++j) store(to + j * kLanes<A>, gather(from + j * pixel, 1, channels));
    return;
  }
  const std::int64_t row = round_up(count, kLanes<A>);
  for (std::int64_t c = 0; c < kLanes<A>; ++c) {
    for (std::int64_t j = 0; j < count; j += kLanes<A>) {
      const T* at = from + c * channel + j * pixel;
      const bool seconds = pixel == 2 && c < channels && j + kLanes<A> < count;  // and one pixel more is there to read
      store(turned + c * row + j,
            seconds ? every_second(at) : gather(at, pixel, c < channels ? lanes_from<A>(j, count) : 0));
    }
  }
  transpose(turned, row, to, kLanes<A>, kLanes<A>, round_up(count, 4));
}

// The way back, of `from` (count, lanes), of which up to 3 pixels more are read.
template <class T>
inline void store_pixels(const Accumulator<T>* from, std::int64_t count, T* to, std::int64_t channel,
                         std::int64_t pixel, std::int64_t channels, Accumulator<T>* turned) {
  using A = Accumulator<T>;
  if (channel == 1) {
    for (std::int64_t j = 0; j < count; ++j) scatter(to + j * pixel, 1, channels, load(from + j * kLanes<A>));
    return;
  }
  const std::int64_t row = round_up(count, kLanes<A>);
  transpose(from, kLanes<A>, turned, row, round_up(count, 4), kLanes<A>);
  for (std::int64_t c = 0; c < channels; ++c) {
    for (std::int64_t j = 0; j < count; j += kLanes<A>) {
      scatter(to + c * channel + j * pixel, pixel, lanes_from<A>(j, count), load(turned + c * row + j));
    }
  }
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
