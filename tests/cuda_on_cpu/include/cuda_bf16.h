// Stands in for CUDA's header of this name: bfloat16 as bits, converted as CUDA does.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

struct __nv_bfloat16 {
  std::uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 value) {
  const std::uint32_t wide = std::uint32_t(value.bits) << 16;
  float result;
  std::memcpy(&result, &wide, sizeof result);
  return result;
}

inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  if (std::isnan(value)) return {0x7fff};
  std::uint32_t wide;
  std::memcpy(&wide, &value, sizeof wide);
  return {std::uint16_t((wide + 0x7fff + (wide >> 16 & 1)) >> 16)};
}
