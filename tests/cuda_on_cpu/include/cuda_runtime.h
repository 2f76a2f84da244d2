// Stands in for CUDA's header of this name where a C++ compiler reads .cu files: what the kernels use of the language
// and of the runtime, on the CPU. A kernel that uses more gets its declaration here.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

// --- the language ----------------------------------------------------------------------------------------

// There is no __shared__: arrays in shared memory are declared with the macros of csrc/cuda/launch.h, which put them
// between guard zones.
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct __align__(8) uint2 {
  unsigned x, y;
};
struct __align__(16) uint4 {
  unsigned x, y, z, w;
};
struct __align__(16) int4 {
  int x, y, z, w;
};
struct __align__(8) float2 {
  float x, y;
};
struct __align__(16) float4 {
  float x, y, z, w;
};
struct __align__(16) double2 {
  double x, y;
};

// Set by the grid before a thread goes on.
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

#include "../grid.h"

using std::max;
using std::min;

// --- barriers and warps ----------------------------------------------------------------------------------

inline void __syncthreads() { cuda_on_cpu::sync_threads(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { cuda_on_cpu::exchange(mask, 0); }
inline void __threadfence() {}
inline void __threadfence_block() {}

namespace cuda_on_cpu {

template <class T> std::uint64_t bits_of(T value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "only values of 4 and 8 bytes are shuffled");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

// The value of lane `from(lane)` of those in the section of `width` lanes; the own one where that is outside.
template <class T, class From> T shuffle(unsigned mask, T value, int width, const From& from) {
  const int lane = lane_index(), section = lane / width * width, other = from(lane - section);
  const bool inside = other >= 0 && other < width;
  const std::uint64_t bits = exchange(mask, bits_of(value))[inside ? section + other : lane];
  T result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

}  // namespace cuda_on_cpu

template <class T> T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  return cuda_on_cpu::shuffle(mask, value, width, [&](int) { return from & (width - 1); });
}
template <class T> T __shfl_down_sync(unsigned mask, T value, int distance, int width = 32) {
  return cuda_on_cpu::shuffle(mask, value, width, [&](int lane) { return lane + distance; });
}
template <class T> T __shfl_up_sync(unsigned mask, T value, int distance, int width = 32) {
  return cuda_on_cpu::shuffle(mask, value, width, [&](int lane) { return lane - distance; });
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int flipped, int width = 32) {
  return cuda_on_cpu::shuffle(mask, value, width, [&](int lane) { return lane ^ flipped; });
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const std::uint64_t* votes = cuda_on_cpu::exchange(mask, predicate != 0);
  unsigned ballot = 0;
  for (int lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1 && votes[lane]) ballot |= 1u << lane;
  return ballot;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
template <class T> unsigned __match_any_sync(unsigned mask, T value) {
  const std::uint64_t mine = cuda_on_cpu::bits_of(value), *values = cuda_on_cpu::exchange(mask, mine);
  unsigned same = 0;
  for (int lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1 && values[lane] == mine) same |= 1u << lane;
  return same;
}

// --- atomics: integers only, for sums of floats would depend on the order ------------------------------------

namespace cuda_on_cpu {
template <class T, class Next> T replace(T* place, const Next& next) {
  static_assert(std::is_integral<T>::value, "atomics on floats give results that depend on the order");
  const T before = *place;
  *place = next(before);
  return before;
}
}  // namespace cuda_on_cpu

template <class T> T atomicAdd(T* place, T value) {
  return cuda_on_cpu::replace(place, [&](T old) { return T(old + value); });
}
template <class T> T atomicMax(T* place, T value) {
  return cuda_on_cpu::replace(place, [&](T old) { return std::max(old, value); });
}
template <class T> T atomicMin(T* place, T value) {
  return cuda_on_cpu::replace(place, [&](T old) { return std::min(old, value); });
}
template <class T> T atomicOr(T* place, T value) {
  return cuda_on_cpu::replace(place, [&](T old) { return T(old | value); });
}
template <class T> T atomicExch(T* place, T value) {
  return cuda_on_cpu::replace(place, [&](T) { return value; });
}
template <class T> T atomicCAS(T* place, T expected, T value) {
  return cuda_on_cpu::replace(place, [&](T old) { return old == expected ? value : old; });
}

// --- intrinsics --------------------------------------------------------------------------------------------

template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> void __stcs(T* p, T value) { *p = value; }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline unsigned __float_as_uint(float x) { return static_cast<unsigned>(cuda_on_cpu::bits_of(x)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }

// --- the runtime: one device, whose limits tests may lower ------------------------------------------------

enum cudaError_t : int {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
  cudaErrorLaunchFailure = 719,
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxThreadsPerMultiProcessor,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
struct cudaFuncAttributes {};
using cudaStream_t = struct CUstream_st*;

cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t error);
const char* cudaGetErrorName(cudaError_t error);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, const void*) { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
inline cudaError_t cudaMemsetAsync(void* p, int value, std::size_t bytes, cudaStream_t) {
  return std::memset(p, value, bytes), cudaSuccess;
}
