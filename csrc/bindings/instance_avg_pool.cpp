// instance_avg_pool: argument passing only.
#include "torchp2p/instance_avg_pool.h"

#include "bindings.h"

namespace py = pybind11;

namespace torchp2p {
namespace {

InstanceAvgPoolParams params_of(const py::tuple& x_shape, int dtype) {
  const auto s = four(x_shape);
  InstanceAvgPoolParams params{};
  params.n = s[0];
  params.c = s[1];
  params.h = s[2];
  params.w = s[3];
  params.dtype = static_cast<DType>(dtype);
  return params;
}

int instance_avg_pool(std::uintptr_t x, std::uintptr_t ids, std::uintptr_t y, std::uintptr_t scratch,
                      const py::tuple& x_shape, const py::tuple& x_stride, const py::tuple& ids_stride, int dtype,
                      int id_bytes, bool channels_last, int device, std::uintptr_t stream) {
  InstanceAvgPoolParams params = params_of(x_shape, dtype);
  params.x = pointer<const void>(x);
  params.ids = pointer<const void>(ids);
  params.y = pointer<void>(y);
  params.scratch = pointer<void>(scratch);
  params.x_stride = strides(x_stride);
  params.ids_stride = strides(ids_stride);
  params.id_bytes = id_bytes;
  params.channels_last = channels_last;
  const py::gil_scoped_release release;
  return static_cast<int>(TORCHP2P_RUN(instance_avg_pool, params, device, stream));
}

#if defined(TORCHP2P_CUDA)
std::int64_t scratch_bytes(const py::tuple& x_shape, int dtype) {
  return instance_avg_pool_scratch_cuda(params_of(x_shape, dtype));
}
#endif

}  // namespace

void bind_instance_avg_pool(py::module_& module) {
  module.def("instance_avg_pool", &instance_avg_pool, "Fill y; returns a status.");
#if defined(TORCHP2P_CUDA)
  module.def("instance_avg_pool_scratch", &scratch_bytes, "Bytes of scratch memory on a CUDA device.");
#endif
}

}  // namespace torchp2p
