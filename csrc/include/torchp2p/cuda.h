// What is asked of CUDA besides running an op. Implemented in csrc/cuda/device.cu.
//
// The entry points <op>_cuda stand beside <op>_cpu in the header of each op. They take the params struct, whose
// addresses are the device's, the device index and a cudaStream_t. They only enqueue: no synchronisation, no allocation
// (scratch memory is in the struct), so a CUDA graph can capture them.
#pragma once

namespace torchp2p {

// What the last kCudaError of this thread was about: the kernel, its grid, and CUDA's own words.
const char* cuda_error();

// Why the kernels of this build cannot run on the device; empty if they can. Starts the driver.
const char* cuda_unavailable(int device);

// The architectures that the kernels were compiled for, as in "80 90".
const char* cuda_architectures();

}  // namespace torchp2p
