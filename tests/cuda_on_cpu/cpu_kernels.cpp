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
bool cpu_multiplies_bfloat16() { return false; }

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
REFUSED(winograd_forward_cpu, WinogradForward)
REFUSED(winograd_input_cpu, WinogradInput)
REFUSED(winograd_weight_cpu, WinogradWeight)
#undef REFUSED

}  // namespace torchp2p
