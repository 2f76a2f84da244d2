// What each op's binding file offers to module.cpp, and the conversions they share.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>

#include "torchp2p/status.h"
#include "torchp2p/strides.h"

// Runs an op where its tensors are. The calls of all ops end with `device`, the index of a CUDA device or -1 for the
// CPU, and `stream`, a cudaStream_t.
#if defined(TORCHP2P_CUDA)
#define TORCHP2P_RUN(op, params, device, stream) \
  ((device) < 0 ? op##_cpu(params) : op##_cuda(params, device, pointer<void>(stream)))
#else
#define TORCHP2P_RUN(op, params, device, stream) \
  ((device) < 0 ? op##_cpu(params) : (static_cast<void>(stream), Status::kBuiltNoCuda))
#endif

namespace torchp2p {

void bind_norm_act(pybind11::module_& module);
void bind_gan_loss(pybind11::module_& module);
void bind_feature_matching_loss(pybind11::module_& module);
void bind_instance_avg_pool(pybind11::module_& module);
void bind_instance_edges(pybind11::module_& module);
void bind_label_conv2d(pybind11::module_& module);
void bind_winograd(pybind11::module_& module);

template <class T> T* pointer(std::uintptr_t address) { return reinterpret_cast<T*>(address); }

// The first four integers of a Python tuple (a shape or the strides of an NCHW tensor).
inline std::array<std::int64_t, 4> four(const pybind11::tuple& t) {
  if (t.size() != 4) throw pybind11::value_error("expected the shape or strides of a 4-dimensional tensor");
  return {t[0].cast<std::int64_t>(), t[1].cast<std::int64_t>(), t[2].cast<std::int64_t>(), t[3].cast<std::int64_t>()};
}

inline Strides strides(const pybind11::tuple& t) {
  const auto s = four(t);
  return {s[0], s[1], s[2], s[3]};
}

}  // namespace torchp2p
