// The bindings know CPU kernels too. Here they are refused, so that a call that was meant for a CUDA kernel and
// went elsewhere fails.
#include "../../csrc/cpu/isa.h"
#include "torchp2p/feature_matching_loss.h"
#include "torchp2p/gan_loss.h"
#include "torchp2p/instance_avg_pool.h"
#include "torchp2p/instance_edges.h"
#include "torchp2p/label_conv2d.h"
#include "torchp2p/norm_act.h"
#include "torchp2p/winograd.h"

namespace torchp2p {

const char* cpu_isa_name() { return "none"; }

#define REFUSED(name, Params) \
  Status name(const Params&) { return Status::kBadArgument; }
REFUSED(feature_matching_loss_backward_cpu, FeatureMatchingBackward)
REFUSED(feature_matching_loss_forward_cpu, FeatureMatchingForward)
REFUSED(gan_loss_cpu, GanLossParams)
REFUSED(instance_avg_pool_cpu, InstanceAvgPoolParams)
REFUSED(instance_edges_cpu, InstanceEdgesParams)
REFUSED(label_conv2d_backward_cpu, LabelConv2dBackward)
REFUSED(label_conv2d_dense_gradient_cpu, LabelConv2dDenseGradient)
REFUSED(label_conv2d_forward_cpu, LabelConv2dForward)
REFUSED(norm_act_backward_cpu, NormActBackward)
REFUSED(norm_act_forward_cpu, NormActForward)
REFUSED(winograd_filter_adjoint_cpu, WinogradFilter)
REFUSED(winograd_filter_cpu, WinogradFilter)
REFUSED(winograd_input_adjoint_cpu, WinogradImage)
REFUSED(winograd_input_cpu, WinogradImage)
REFUSED(winograd_output_adjoint_cpu, WinogradImage)
REFUSED(winograd_output_cpu, WinogradImage)
#undef REFUSED

}  // namespace torchp2p
