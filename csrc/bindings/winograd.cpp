// winograd: argument passing only. The arguments are those of the params structs, in their order, the shape last.
#include "torchp2p/winograd.h"

#include "bindings.h"

namespace py = pybind11;

namespace torchp2p {
namespace {

WinogradShape shape_of(const py::tuple& x_shape, std::int64_t outputs, int kernel, int stride, std::int64_t pad,
                       int dtype, int weight_dtype) {
  const auto s = four(x_shape);
  return {s[0],
          s[1],
          outputs,
          s[2],
          s[3],
          kernel,
          stride,
          pad,
          static_cast<DType>(dtype),
          static_cast<DType>(weight_dtype)};
}

int forward(std::uintptr_t x, std::uintptr_t weight, std::uintptr_t bias, std::uintptr_t y, const py::tuple& x_stride,
            const py::tuple& weight_stride, const py::tuple& y_stride, const py::tuple& x_shape, std::int64_t outputs,
            int kernel, int stride, std::int64_t pad, int dtype, int weight_dtype) {
  const WinogradForward params{shape_of(x_shape, outputs, kernel, stride, pad, dtype, weight_dtype),
                               pointer<const void>(x),
                               pointer<const void>(weight),
                               pointer<const void>(bias),
                               pointer<void>(y),
                               strides(x_stride),
                               strides(weight_stride),
                               strides(y_stride)};
  const py::gil_scoped_release release;
  return static_cast<int>(winograd_forward_cpu(params));
}

// The gradient of the input, or that of the weight: of two images or filters, a third.
template <class Params, Status (*kRun)(const Params&)>
int gradient(std::uintptr_t grad, std::uintptr_t other, std::uintptr_t result, const py::tuple& grad_stride,
             const py::tuple& other_stride, const py::tuple& result_stride, const py::tuple& x_shape,
             std::int64_t outputs, int kernel, int stride, std::int64_t pad, int dtype, int weight_dtype) {
  const Params params{shape_of(x_shape, outputs, kernel, stride, pad, dtype, weight_dtype),
                      pointer<const void>(grad),
                      pointer<const void>(other),
                      pointer<void>(result),
                      strides(grad_stride),
                      strides(other_stride),
                      strides(result_stride)};
  const py::gil_scoped_release release;
  return static_cast<int>(kRun(params));
}

}  // namespace

void bind_winograd(py::module_& module) {
  module.def("winograd_forward", &forward, "Fill a result; returns a status.");
  module.def("winograd_input", &gradient<WinogradInput, winograd_input_cpu>, "Fill the gradient of an input.");
  module.def("winograd_weight", &gradient<WinogradWeight, winograd_weight_cpu>, "Fill the gradient of a weight.");
}

}  // namespace torchp2p
