// What an entry point returns. Nothing is thrown across it and nothing exits.
#pragma once

namespace torchp2p {

enum class Status : int {
  kOk = 0,
  kBadArgument = 1,  // sizes, codes or addresses that the Python side should have refused
  kOutOfMemory = 2,  // scratch space could not be had
  kCudaError = 3,    // CUDA refused: cuda_error() of cuda.h has its words
  kBuiltNoCuda = 4,  // a device was named, and this build has no CUDA kernels
};

inline const char* status_name(Status status) {
  switch (status) {
    case Status::kOk: return "ok";
    case Status::kBadArgument: return "bad argument";
    case Status::kOutOfMemory: return "out of memory";
    case Status::kCudaError: return "CUDA error";
    case Status::kBuiltNoCuda: return "built without CUDA";
  }
  return "unknown";
}

}  // namespace torchp2p
