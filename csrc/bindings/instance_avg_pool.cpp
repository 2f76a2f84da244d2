// instance_avg_pool: argument passing only. The arguments are those of the params struct, in their order.
#include "torchp2p/instance_avg_pool.h"

#include "bindings.h"

namespace py = pybind11;

namespace torchp2p {
namespace {

int instance_avg_pool(std::uintptr_t x, std::uintptr_t ids, std::uintptr_t y, const py::tuple& x_shape,
                      const py::tuple& x_stride, const py::tuple& ids_stride, int dtype, int id_bytes,
                      bool channels_last) {
  const auto s = four(x_shape);
  const InstanceAvgPoolParams params{
      pointer<const void>(x), pointer<const void>(ids), pointer<void>(y),          s[0],     s[1],         s[2], s[3],
      strides(x_stride),      strides(ids_stride),      static_cast<DType>(dtype), id_bytes, channels_last};
  const py::gil_scoped_release release;
  return static_cast<int>(instance_avg_pool_cpu(params));
}

}  // namespace

void bind_instance_avg_pool(py::module_& module) {
  module.def("instance_avg_pool", &instance_avg_pool, "Fill y; returns a status.");
}

}  // namespace torchp2p
