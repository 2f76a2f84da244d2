// winograd: argument passing only. The arguments are those of the params structs, in their order.
#include "torchp2p/winograd.h"

#include "bindings.h"

namespace py = pybind11;

namespace torchp2p {
namespace {

template <Status (*kTransform)(const WinogradImage&)>
int image(std::uintptr_t image, std::uintptr_t frequencies, std::uintptr_t bias, const py::tuple& shape,
          const py::tuple& stride, std::int64_t pad, int m, int dtype) {
  const auto s = four(shape);
  const WinogradImage params{{s[0], s[1], s[2], s[3], pad, m, static_cast<DType>(dtype)},
                             pointer<void>(image),
                             pointer<void>(frequencies),
                             pointer<const void>(bias),
                             strides(stride)};
  const py::gil_scoped_release release;
  return static_cast<int>(kTransform(params));
}

template <Status (*kTransform)(const WinogradFilter&)>
int filter(std::uintptr_t weight, std::uintptr_t frequencies, const py::tuple& shape, const py::tuple& stride, int m,
           int dtype) {
  const auto s = four(shape);
  const WinogradFilter params{
      s[0], s[1], m, static_cast<DType>(dtype), pointer<void>(weight), pointer<void>(frequencies), strides(stride)};
  const py::gil_scoped_release release;
  return static_cast<int>(kTransform(params));
}

}  // namespace

void bind_winograd(py::module_& module) {
  module.def("winograd_input", &image<winograd_input_cpu>, "Fill the frequencies of an input; returns a status.");
  module.def("winograd_input_adjoint", &image<winograd_input_adjoint_cpu>, "Fill an input's gradient.");
  module.def("winograd_output", &image<winograd_output_cpu>, "Fill a result; returns a status.");
  module.def("winograd_output_adjoint", &image<winograd_output_adjoint_cpu>, "Fill frequencies of a gradient.");
  module.def("winograd_filter", &filter<winograd_filter_cpu>, "Fill the frequencies of filters; returns a status.");
  module.def("winograd_filter_adjoint", &filter<winograd_filter_adjoint_cpu>, "Fill the gradient of filters.");
}

}  // namespace torchp2p
