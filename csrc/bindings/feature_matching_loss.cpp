// feature_matching_loss: argument passing only. Pairs come as (address of fake, of real, of signs or 0, shape,
// order, strides of fake, strides of real, weight), gradients as (address of signs, of grad, count, weight).
#include "torchp2p/feature_matching_loss.h"

#include <pybind11/stl.h>

#include <tuple>
#include <vector>

#include "bindings.h"

namespace py = pybind11;

namespace torchp2p {
namespace {

using Numbers = std::vector<std::int64_t>;
using Pair = std::tuple<std::uintptr_t, std::uintptr_t, std::uintptr_t, Numbers, Numbers, Numbers, Numbers, double>;
using Gradient = std::tuple<std::uintptr_t, std::uintptr_t, std::int64_t, double>;

int forward(const std::vector<Pair>& pairs, int dtype, std::uintptr_t loss, std::uintptr_t scratch, int device,
            std::uintptr_t stream) {
  std::vector<FeaturePair> entries;
  entries.reserve(pairs.size());
  for (const auto& [fake, real, signs, shape, order, fake_stride, real_stride, weight] : pairs) {
    if (order.size() != shape.size() || fake_stride.size() != shape.size() || real_stride.size() != shape.size()) {
      throw py::value_error("expected one stride for every size");
    }
    entries.push_back({pointer<const void>(fake), pointer<const void>(real), pointer<void>(signs),
                       static_cast<int>(shape.size()), shape.data(), order.data(), fake_stride.data(),
                       real_stride.data(), weight});
  }
  const FeatureMatchingForward params{entries.data(), static_cast<std::int64_t>(entries.size()),
                                      static_cast<DType>(dtype), pointer<void>(loss), pointer<void>(scratch)};
  const py::gil_scoped_release release;
  return static_cast<int>(TORCHP2P_RUN(feature_matching_loss_forward, params, device, stream));
}

int backward(const std::vector<Gradient>& gradients, int dtype, std::uintptr_t grad_loss, int device,
             std::uintptr_t stream) {
  std::vector<FeatureGradient> entries;
  entries.reserve(gradients.size());
  for (const auto& [signs, grad, count, weight] : gradients) {
    entries.push_back({pointer<const void>(signs), pointer<void>(grad), count, weight});
  }
  const FeatureMatchingBackward params{entries.data(), static_cast<std::int64_t>(entries.size()),
                                       static_cast<DType>(dtype), pointer<const void>(grad_loss)};
  const py::gil_scoped_release release;
  return static_cast<int>(TORCHP2P_RUN(feature_matching_loss_backward, params, device, stream));
}

#if defined(TORCHP2P_CUDA)
std::int64_t scratch_bytes(const Numbers& counts) {
  return feature_matching_loss_scratch_cuda(counts.data(), static_cast<std::int64_t>(counts.size()));
}
#endif

}  // namespace

void bind_feature_matching_loss(py::module_& module) {
  module.def("feature_matching_loss_forward", &forward, "Write the loss and the signs; returns a status.");
  module.def("feature_matching_loss_backward", &backward, "Fill the gradients; returns a status.");
#if defined(TORCHP2P_CUDA)
  module.def("feature_matching_loss_scratch", &scratch_bytes,
             "Bytes of scratch memory for pairs of these counts of values on a CUDA device.");
#endif
}

}  // namespace torchp2p
