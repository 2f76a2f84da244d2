// Stands in for CUDA's header of this name: half precision as bits, converted as CUDA does.
#pragma once

#include <cmath>
#include <cstdint>

struct __half {
  std::uint16_t bits;
};

inline float __half2float(__half value) {
  const int exponent = value.bits >> 10 & 31, fraction = value.bits & 1023;
  const float sign = value.bits >> 15 ? -1.0f : 1.0f;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  return sign * (exponent ? std::ldexp(1024.0f + fraction, exponent - 25) : std::ldexp(float(fraction), -24));
}

inline __half __float2half_rn(float value) {
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return {0x7fff};
  const float size = std::fabs(value);
  if (size >= 65520) return {std::uint16_t(sign | 0x7c00)};
  if (size == 0) return {sign};
  // Steps of the result's exponent; nearbyint rounds ties to even. A carry runs into the exponent, as it should.
  const int exponent = std::fmax(std::ilogb(size), -14);
  const int steps = int(std::nearbyint(std::ldexp(size, 10 - exponent)));
  return {std::uint16_t(sign | (((exponent + 14) << 10) + steps))};
}
