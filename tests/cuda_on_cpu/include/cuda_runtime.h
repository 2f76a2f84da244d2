// Stands in for CUDA's header of this name where a C++ compiler reads .cu files: what the kernels use of the language
// and of the runtime, on the CPU. A kernel that uses more gets its declaration here.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

// --- the language ---------------------------------------------------------------------------------------

// There is no __shared__: arrays in shared memory are declared with the macros of csrc/cuda/launch.h, which put them
// between guard zones.
#define __global__
#define __device__
#define __host__
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

// Set by the grid before a thread goes on.
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

#include "../grid.h"

using std::max;
using std::min;

// --- barriers and warps ---------------------------------------------------------------------------------

inline void __syncthreads() { cuda_on_cpu::sync_threads(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { cuda_on_cpu::exchange(mask, 0); }

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
// --- atomics: integers only, for sums of floats would depend on the order -------------------------------

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
template <class T> T atomicCAS(T* place, T expected, T value) {
  return cuda_on_cpu::replace(place, [&](T old) { return old == expected ? value : old; });
}

// --- intrinsics -----------------------------------------------------------------------------------------

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }

// --- the runtime: one device, whose limits tests may lower ----------------------------------------------

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
