// 16 bytes at a time: what one thread loads or stores in one instruction.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "types.h"

namespace torchp2p {

template <class T> constexpr int kPack = 16 / int(sizeof(T));

template <class T> struct alignas(16) Pack {
  T values[kPack<T>];
};

// Packs may be used from p on where this holds: the address of a tensor is aligned, and so is every row of it if
// its strides are multiples of kPack<T>.
template <class T> inline __host__ __device__ bool takes_packs(const T* p) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
}

template <class T> inline __device__ Pack<T> load_pack(const T* p) {
  Pack<T> pack;
  *reinterpret_cast<uint4*>(pack.values) = *reinterpret_cast<const uint4*>(p);
  return pack;
}

template <class T> inline __device__ void store_pack(T* p, const Pack<T>& pack) {
  *reinterpret_cast<uint4*>(p) = *reinterpret_cast<const uint4*>(pack.values);
}

// The first count values.
template <class T> inline __device__ void store_tail(T* p, const Pack<T>& pack, int count) {
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i)
    if (i < count) p[i] = pack.values[i];
}

}  // namespace torchp2p
