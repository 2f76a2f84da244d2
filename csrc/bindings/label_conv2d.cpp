// label_conv2d: argument passing only.
#include "torchp2p/label_conv2d.h"

#include <pybind11/stl.h>

#include <utility>

#include "bindings.h"

namespace py = pybind11;

namespace torchp2p {
namespace {

Strides strides(const py::tuple& t) {
  const auto s = four(t);
  return {s[0], s[1], s[2], s[3]};
}

// `sizes`: classes, dense channels, out channels; kernel, stride and padding as (height, width).
LabelConv2dShape shape(const py::tuple& image_shape, const std::array<std::int64_t, 3>& sizes,
                       const std::array<std::int64_t, 6>& window, int pad_mode, int dtype, int label_type) {
  const auto s = four(image_shape);
  return {s[0],
          s[2],
          s[3],
          sizes[0],
          sizes[1],
          sizes[2],
          window[0],
          window[1],
          window[2],
          window[3],
          window[4],
          window[5],
          static_cast<PadMode>(pad_mode),
          static_cast<DType>(dtype),
          static_cast<LabelType>(label_type)};
}

LabelConv2dInput input(std::uintptr_t labels, std::uintptr_t dense, const py::tuple& label_stride,
                       const py::tuple& dense_stride) {
  return {pointer<const void>(labels), pointer<const void>(dense), strides(label_stride), strides(dense_stride)};
}

// Returns a status and the flat index of the first label that is out of range (-1: none). On a CUDA device that goes to
// `bad_label`, an address there or 0, and the index returned is -1.
std::pair<int, std::int64_t> forward(std::uintptr_t labels, std::uintptr_t dense, std::uintptr_t weight,
                                     std::uintptr_t bias, std::uintptr_t y, std::uintptr_t bad_label,
                                     std::uintptr_t scratch, const py::tuple& labels_shape,
                                     const py::tuple& label_stride, const py::tuple& dense_stride,
                                     const py::tuple& weight_stride, const std::array<std::int64_t, 3>& sizes,
                                     const std::array<std::int64_t, 6>& window, int pad_mode, int dtype, int label_type,
                                     bool channels_last, bool ignore_out_of_range, int device, std::uintptr_t stream) {
  std::int64_t found = -1;
  const LabelConv2dForward params{shape(labels_shape, sizes, window, pad_mode, dtype, label_type),
                                  input(labels, dense, label_stride, dense_stride),
                                  pointer<const void>(weight),
                                  pointer<const void>(bias),
                                  pointer<void>(y),
                                  strides(weight_stride),
                                  channels_last,
                                  ignore_out_of_range,
                                  device < 0 ? &found : pointer<std::int64_t>(bad_label),
                                  pointer<void>(scratch)};
  const py::gil_scoped_release release;
  return {static_cast<int>(TORCHP2P_RUN(label_conv2d_forward, params, device, stream)), found};
}

int backward(std::uintptr_t labels, std::uintptr_t dense, std::uintptr_t grad_y, std::uintptr_t grad_weight,
             std::uintptr_t grad_bias, std::uintptr_t scratch, const py::tuple& labels_shape,
             const py::tuple& label_stride, const py::tuple& dense_stride, const py::tuple& grad_y_stride,
             const py::tuple& grad_weight_stride, const std::array<std::int64_t, 3>& sizes,
             const std::array<std::int64_t, 6>& window, int pad_mode, int dtype, int label_type, int device,
             std::uintptr_t stream) {
  const LabelConv2dBackward params{shape(labels_shape, sizes, window, pad_mode, dtype, label_type),
                                   input(labels, dense, label_stride, dense_stride),
                                   pointer<const void>(grad_y),
                                   pointer<void>(grad_weight),
                                   pointer<void>(grad_bias),
                                   pointer<void>(scratch),
                                   strides(grad_y_stride),
                                   strides(grad_weight_stride)};
  const py::gil_scoped_release release;
  return static_cast<int>(TORCHP2P_RUN(label_conv2d_backward, params, device, stream));
}

int dense_gradient(std::uintptr_t grad_y, std::uintptr_t weight, std::uintptr_t grad_dense, std::uintptr_t scratch,
                   const py::tuple& dense_shape, const py::tuple& grad_y_stride, const py::tuple& weight_stride,
                   const std::array<std::int64_t, 3>& sizes, const std::array<std::int64_t, 6>& window, int pad_mode,
                   int dtype, bool channels_last, int device, std::uintptr_t stream) {
  const LabelConv2dDenseGradient params{shape(dense_shape, sizes, window, pad_mode, dtype, 0),
                                        pointer<const void>(grad_y),
                                        pointer<const void>(weight),
                                        pointer<void>(grad_dense),
                                        pointer<void>(scratch),
                                        strides(grad_y_stride),
                                        strides(weight_stride),
                                        channels_last};
  const py::gil_scoped_release release;
  return static_cast<int>(TORCHP2P_RUN(label_conv2d_dense_gradient, params, device, stream));
}

#if defined(TORCHP2P_CUDA)
template <std::int64_t (*kBytes)(const LabelConv2dShape&)>
std::int64_t scratch_bytes(const py::tuple& image_shape, const std::array<std::int64_t, 3>& sizes,
                           const std::array<std::int64_t, 6>& window, int pad_mode, int dtype) {
  return kBytes(shape(image_shape, sizes, window, pad_mode, dtype, 0));
}
#endif

}  // namespace

void bind_label_conv2d(py::module_& module) {
  module.def("label_conv2d_forward", &forward, "Fill y; returns a status and the first label out of range.");
  module.def("label_conv2d_backward", &backward, "Fill the gradients of weight and bias; returns a status.");
  module.def("label_conv2d_dense_gradient", &dense_gradient, "Fill the dense channels' gradient; returns a status.");
#if defined(TORCHP2P_CUDA)
  // Bytes of scratch memory that a call wants on a CUDA device.
  module.def("label_conv2d_forward_scratch", &scratch_bytes<label_conv2d_forward_scratch_cuda>);
  module.def("label_conv2d_backward_scratch", &scratch_bytes<label_conv2d_backward_scratch_cuda>);
  module.def("label_conv2d_dense_gradient_scratch", &scratch_bytes<label_conv2d_dense_gradient_scratch_cuda>);
#endif
}

}  // namespace torchp2p
