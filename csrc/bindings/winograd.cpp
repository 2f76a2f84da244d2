// winograd: argument passing only. The arguments are those of the params structs, in their order.
#include "torchp2p/winograd.h"

#include "bindings.h"

namespace py = pybind11;

namespace torchp2p {
namespace {

WinogradShape shape_of(const py::tuple& x_shape, std::int64_t outputs, std::int64_t pad, int m, int dtype,
                       int weight_dtype) {
  const auto s = four(x_shape);
  return {s[0], s[1], outputs, s[2], s[3], pad, m, static_cast<DType>(dtype), static_cast<DType>(weight_dtype)};
}

int forward(std::uintptr_t x, std::uintptr_t weight, std::uintptr_t bias, std::uintptr_t y, const py::tuple& x_stride,
            const py::tuple& weight_stride, const py::tuple& y_stride, bool flip, const py::tuple& x_shape,
            std::int64_t outputs, std::int64_t pad, int m, int dtype, int weight_dtype) {
  const WinogradForward params{shape_of(x_shape, outputs, pad, m, dtype, weight_dtype),
                               pointer<const void>(x),
                               pointer<const void>(weight),
                               pointer<const void>(bias),
                               pointer<void>(y),
                               strides(x_stride),
                               strides(weight_stride),
                               strides(y_stride),
                               flip};
  const py::gil_scoped_release release;
  return static_cast<int>(winograd_forward_cpu(params));
}

int weight(std::uintptr_t x, std::uintptr_t grad, std::uintptr_t grad_weight, const py::tuple& x_stride,
           const py::tuple& grad_stride, const py::tuple& weight_stride, const py::tuple& x_shape,
           std::int64_t outputs, std::int64_t pad, int m, int dtype, int weight_dtype) {
  const WinogradWeight params{shape_of(x_shape, outputs, pad, m, dtype, weight_dtype),
                              pointer<const void>(x),
                              pointer<const void>(grad),
                              pointer<void>(grad_weight),
                              strides(x_stride),
                              strides(grad_stride),
                              strides(weight_stride)};
  const py::gil_scoped_release release;
  return static_cast<int>(winograd_weight_cpu(params));
}

}  // namespace

void bind_winograd(py::module_& module) {
  module.def("winograd_forward", &forward, "Fill a result, or the gradient of an input; returns a status.");
  module.def("winograd_weight", &weight, "Fill the gradient of a weight; returns a status.");
}

}  // namespace torchp2p
