// What the kernels of all ops need to know of the device, and the words for what went wrong.
#include <cstdio>

#include "launch.h"

#ifndef TORCHP2P_CUDA_ARCHS
#define TORCHP2P_CUDA_ARCHS ""
#endif

namespace torchp2p {
namespace {

thread_local char words[512] = "";

__global__ void do_nothing() {}

}  // namespace

const char* cuda_error() { return words; }
const char* cuda_architectures() { return TORCHP2P_CUDA_ARCHS; }

Status cuda_failed(const char* what, cudaError_t error) {
  cudaGetLastError();  // else the next launch would be blamed
  std::snprintf(words, sizeof words, "%s: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
  return Status::kCudaError;
}

Status launch_failed(const char* kernel, const Grid& grid, cudaError_t error) {
  char what[256];
  std::snprintf(
      what, sizeof what, "%s on a grid of %ux%ux%u blocks of %ux%ux%u threads with %zu bytes of shared memory", kernel,
      grid.blocks.x, grid.blocks.y, grid.blocks.z, grid.threads.x, grid.threads.y, grid.threads.z, grid.shared);
  return cuda_failed(what, error);
}

Status read_limits(Limits& limits) {
  int device = 0, block = 0, multiprocessor = 0;
  cudaError_t error = cudaGetDevice(&device);
  const auto read = [&](int& value, cudaDeviceAttr attribute) {
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&value, attribute, device);
  };
  read(limits.multiprocessors, cudaDevAttrMultiProcessorCount);
  read(limits.threads_per_multiprocessor, cudaDevAttrMaxThreadsPerMultiProcessor);
  read(block, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  read(multiprocessor, cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  limits.shared_per_block = block;
  limits.shared_per_multiprocessor = multiprocessor;
  return error == cudaSuccess ? Status::kOk : cuda_failed("reading the limits of the device", error);
}

const char* cuda_unavailable(int device) {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess) {
    cuda_failed("the CUDA driver does not start", error);
    return words;
  }
  if (device >= devices) {
    std::snprintf(words, sizeof words, "there is no CUDA device %d: the driver sees %d", device, devices);
    return words;
  }
  // Asking for a kernel's attributes loads it, which fails where no code for the device was compiled.
  cudaFuncAttributes attributes;
  const Status status = on_device(device, [&] {
    const cudaError_t found = cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(do_nothing));
    return found == cudaSuccess ? Status::kOk
                                : cuda_failed("no kernel for this GPU (compiled for " TORCHP2P_CUDA_ARCHS ")", found);
  });
  return status == Status::kOk ? "" : words;
}

}  // namespace torchp2p
