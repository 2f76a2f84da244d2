// instance_edges: argument passing only. The arguments are those of the params struct, in their order, and the place.
#include "torchp2p/instance_edges.h"

#include "bindings.h"

namespace py = pybind11;

namespace torchp2p {
namespace {

int instance_edges(std::uintptr_t ids, std::uintptr_t edges, const py::tuple& ids_shape, const py::tuple& ids_stride,
                   int id_bytes, int edge_bytes, std::uint64_t one, int device, std::uintptr_t stream) {
  const auto s = four(ids_shape);
  const InstanceEdgesParams params{
      pointer<const void>(ids), pointer<void>(edges), s[0], s[2], s[3], strides(ids_stride), id_bytes, edge_bytes, one};
  const py::gil_scoped_release release;
  return static_cast<int>(TORCHP2P_RUN(instance_edges, params, device, stream));
}

}  // namespace

void bind_instance_edges(py::module_& module) {
  module.def("instance_edges", &instance_edges, "Fill the edges; returns a status.");
}

}  // namespace torchp2p
