// gan_loss: argument passing only. Maps come as (address of values, address of slopes or 0, count).
#include "torchp2p/gan_loss.h"

#include <pybind11/stl.h>

#include <vector>

#include "bindings.h"

namespace py = pybind11;

namespace torchp2p {
namespace {

int gan_loss(const py::list& maps, int dtype, int mode, bool target_is_real, std::uintptr_t loss,
             std::uintptr_t scratch, int device, std::uintptr_t stream) {
  std::vector<GanLossMap> entries;
  entries.reserve(maps.size());
  for (const py::handle& item : maps) {
    const auto map = py::cast<py::tuple>(item);
    entries.push_back({pointer<const void>(map[0].cast<std::uintptr_t>()), pointer<void>(map[1].cast<std::uintptr_t>()),
                       map[2].cast<std::int64_t>()});
  }
  const GanLossParams params{entries.data(),
                             static_cast<std::int64_t>(entries.size()),
                             static_cast<DType>(dtype),
                             static_cast<GanLoss>(mode),
                             target_is_real,
                             pointer<void>(loss),
                             pointer<void>(scratch)};
  const py::gil_scoped_release release;
  return static_cast<int>(TORCHP2P_RUN(gan_loss, params, device, stream));
}

#if defined(TORCHP2P_CUDA)
std::int64_t scratch_bytes(const std::vector<std::int64_t>& counts) {
  return gan_loss_scratch_cuda(counts.data(), static_cast<std::int64_t>(counts.size()));
}
#endif

}  // namespace

void bind_gan_loss(py::module_& module) {
  module.def("gan_loss", &gan_loss, "Write the loss and the slopes; returns a status.");
#if defined(TORCHP2P_CUDA)
  module.def("gan_loss_scratch", &scratch_bytes, "Bytes of scratch memory for maps of these counts on a CUDA device.");
#endif
}

}  // namespace torchp2p
