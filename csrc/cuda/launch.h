// Launching a kernel: on the device and in the stream of the caller, every launch checked.
//
// An entry point reads
//
//   Status op_cuda(const Params& p, int device, void* stream) {
//     return on_device(device, [&] {
//       return launch("op_kernel<float>", op_kernel<float>, {blocks, threads, shared}, stream, p.x, p.y);
//     });
//   }
//
// The very same files run without a GPU: tests/cuda_on_cpu has headers in place of CUDA's, with which a C++ compiler
// runs grids block by block. What it cannot read as C++ stands behind the three macros here, and nowhere else.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "torchp2p/cuda.h"
#include "torchp2p/status.h"

#if defined(__CUDACC__)
#define TORCHP2P_START(kernel, grid, stream, ...) \
  kernel<<<grid.blocks, grid.threads, grid.shared, stream>>>(__VA_ARGS__)
// An array in shared memory, as `T name[count]`.
#define TORCHP2P_SHARED(T, name, count) __shared__ T name[count]
// The shared memory that the launch asked for, as `T* name`, 16-byte aligned. Once in a kernel.
#define TORCHP2P_DYNAMIC_SHARED(T, name)                           \
  extern __shared__ __align__(16) unsigned char dynamic_shared_[]; \
  T* const name = reinterpret_cast<T*>(dynamic_shared_)
#else
#define TORCHP2P_START(kernel, grid, stream, ...) \
  (static_cast<void>(stream), cuda_on_cpu::run(grid.blocks, grid.threads, grid.shared, [&] { kernel(__VA_ARGS__); }))
#define TORCHP2P_SHARED(T, name, count)         \
  static cuda_on_cpu::SharedArray name##_array; \
  T* const name = cuda_on_cpu::shared<T>(name##_array, count)
#define TORCHP2P_DYNAMIC_SHARED(T, name) T* const name = reinterpret_cast<T*>(cuda_on_cpu::dynamic_shared())
#endif

namespace torchp2p {

struct Grid {
  dim3 blocks, threads;
  std::size_t shared = 0;  // bytes of dynamic shared memory
};

// Keeps the words for cuda_error() and clears CUDA's own note of the error.
Status cuda_failed(const char* what, cudaError_t error);
Status launch_failed(const char* kernel, const Grid& grid, cudaError_t error);

// What the device has; read from it, never assumed.
struct Limits {
  int multiprocessors;
  int threads_per_multiprocessor;
  std::size_t shared_per_block;  // with the opt-in above 48 KB
  std::size_t shared_per_multiprocessor;
};
Status read_limits(Limits& limits);  // of the current device

// Runs body() with the device current, and makes current again what was.
template <class Body> Status on_device(int device, const Body& body) {
  int before = device;
  cudaError_t error = cudaGetDevice(&before);
  if (error == cudaSuccess && before != device) error = cudaSetDevice(device);
  if (error != cudaSuccess) return cuda_failed("making the device current", error);
  const Status status = body();
  if (before != device) cudaSetDevice(before);
  return status;
}

// Nothing is launched where a grid is empty: there is nothing to do.
template <class... Parameters, class... Arguments>
Status launch(const char* name, void (*kernel)(Parameters...), const Grid& grid, void* stream, Arguments... arguments) {
  if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0) return Status::kOk;
  constexpr std::size_t kWithoutOptIn = 48 * 1024;
  if (grid.shared > kWithoutOptIn) {
    const cudaError_t error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                   cudaFuncAttributeMaxDynamicSharedMemorySize, int(grid.shared));
    if (error != cudaSuccess) return launch_failed(name, grid, error);
  }
  TORCHP2P_START(kernel, grid, static_cast<cudaStream_t>(stream), arguments...);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? Status::kOk : launch_failed(name, grid, error);
}

}  // namespace torchp2p
