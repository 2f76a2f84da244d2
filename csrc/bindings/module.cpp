// torchp2p._C: raw addresses in, a status out. It knows no torch; torchp2p/ops checks the arguments.
#include "../cpu/isa.h"
#include "bindings.h"
#include "torchp2p/cuda.h"
#include "torchp2p/status.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, module) {
  module.doc() = "Native kernels of torchp2p. Called by torchp2p.ops only.";
  module.def("cpu_isa", &torchp2p::cpu_isa_name, "The instruction set that the CPU kernels use here.");
  module.def("cpu_multiplies_bfloat16", &torchp2p::cpu_multiplies_bfloat16,
             "Whether products of bfloat16 numbers are taken in pairs, twice as fast as those of float32.");
  module.def("status_name", [](int status) { return torchp2p::status_name(static_cast<torchp2p::Status>(status)); });
#if defined(TORCHP2P_CUDA)
  module.def("cuda_error", &torchp2p::cuda_error, "What the last CUDA error of this thread was about.");
  module.def("cuda_unavailable", &torchp2p::cuda_unavailable,
             "Why kernels cannot run on the device; empty if they can.");
  module.def("cuda_architectures", &torchp2p::cuda_architectures, "The architectures compiled for, as in 80 90.");
#endif
  torchp2p::bind_norm_act(module);
  torchp2p::bind_gan_loss(module);
  torchp2p::bind_feature_matching_loss(module);
  torchp2p::bind_instance_avg_pool(module);
  torchp2p::bind_instance_edges(module);
  torchp2p::bind_label_conv2d(module);
  torchp2p::bind_winograd(module);
}
