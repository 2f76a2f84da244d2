// norm_act: argument passing only. The arguments are those of the params structs, in their order.
#include "torchp2p/norm_act.h"

#include "bindings.h"

namespace py = pybind11;

namespace torchp2p {
namespace {

NormActShape shape(const py::tuple& x_shape, int dtype, int statistics, std::int64_t stat_groups, double eps, int act,
                   double slope, std::int64_t pad, int pad_mode, bool channels_last) {
  const auto s = four(x_shape);
  return {s[0],
          s[1],
          s[2],
          s[3],
          static_cast<DType>(dtype),
          static_cast<Statistics>(statistics),
          stat_groups,
          eps,
          static_cast<Activation>(act),
          slope,
          pad,
          static_cast<PadMode>(pad_mode),
          channels_last};
}

int forward(std::uintptr_t x, std::uintptr_t weight, std::uintptr_t bias, std::uintptr_t residual, std::uintptr_t y,
            std::uintptr_t mean, std::uintptr_t var, std::uintptr_t scratch, const py::tuple& x_shape,
            const py::tuple& x_stride, const py::tuple& residual_stride, int dtype, int statistics,
            std::int64_t stat_groups, double eps, int act, double slope, std::int64_t pad, int pad_mode,
            bool channels_last, int device, std::uintptr_t stream) {
  const NormActForward params{
      shape(x_shape, dtype, statistics, stat_groups, eps, act, slope, pad, pad_mode, channels_last),
      pointer<const void>(x),
      pointer<const void>(weight),
      pointer<const void>(bias),
      pointer<const void>(residual),
      pointer<void>(y),
      pointer<void>(mean),
      pointer<void>(var),
      pointer<void>(scratch),
      strides(x_stride),
      strides(residual_stride)};
  const py::gil_scoped_release release;
  return static_cast<int>(TORCHP2P_RUN(norm_act_forward, params, device, stream));
}

int backward(std::uintptr_t grad_y, std::uintptr_t x, std::uintptr_t weight, std::uintptr_t bias,
             std::uintptr_t residual, std::uintptr_t mean, std::uintptr_t var, std::uintptr_t grad_x,
             std::uintptr_t grad_weight, std::uintptr_t grad_bias, std::uintptr_t grad_residual, std::uintptr_t scratch,
             const py::tuple& x_shape, const py::tuple& grad_y_stride, const py::tuple& x_stride,
             const py::tuple& residual_stride, int dtype, int statistics, std::int64_t stat_groups, double eps, int act,
             double slope, std::int64_t pad, int pad_mode, bool channels_last, int device, std::uintptr_t stream) {
  const NormActBackward params{
      shape(x_shape, dtype, statistics, stat_groups, eps, act, slope, pad, pad_mode, channels_last),
      pointer<const void>(grad_y),
      pointer<const void>(x),
      pointer<const void>(weight),
      pointer<const void>(bias),
      pointer<const void>(residual),
      pointer<const void>(mean),
      pointer<const void>(var),
      pointer<void>(grad_x),
      pointer<void>(grad_weight),
      pointer<void>(grad_bias),
      pointer<void>(grad_residual),
      pointer<void>(scratch),
      strides(grad_y_stride),
      strides(x_stride),
      strides(residual_stride)};
  const py::gil_scoped_release release;
  return static_cast<int>(TORCHP2P_RUN(norm_act_backward, params, device, stream));
}

#if defined(TORCHP2P_CUDA)
std::int64_t scratch_bytes(const py::tuple& x_shape, int dtype, int statistics, std::int64_t stat_groups, double eps,
                           int act, double slope, std::int64_t pad, int pad_mode, bool channels_last) {
  return norm_act_scratch_cuda(
      shape(x_shape, dtype, statistics, stat_groups, eps, act, slope, pad, pad_mode, channels_last));
}
#endif

}  // namespace

void bind_norm_act(py::module_& module) {
  module.def("norm_act_forward", &forward, "Fill y, mean and var; returns a status.");
  module.def("norm_act_backward", &backward, "Fill the gradients; returns a status.");
#if defined(TORCHP2P_CUDA)
  module.def("norm_act_scratch", &scratch_bytes, "Bytes of scratch memory that both want on a CUDA device.");
#endif
}

}  // namespace torchp2p
