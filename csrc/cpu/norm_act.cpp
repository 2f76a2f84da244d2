// norm_act on the CPU.
//
// Forward:  per chunk, mean and M2 of blocks that stay in L1 (two passes: mean, then squared deviations), merged
//           in double (Chan et al.); then one pass y = act((x - mean) * scale + shift + residual), written to
//           its place in the padded result and to the border places that repeat it.
// Backward: one pass sums g' and g' * xhat (g' = folded gradient through the activation), one writes
//           grad_x = scale * (g' - mean(g') - xhat * mean(g' * xhat)).
// Memory:   forward reads x twice (the second time from cache where a plane fits) and writes y; backward reads
//           grad_y and x twice and writes grad_x. Nothing else is kept between them than mean and variance.
// Parallel: see norm_act_plan.h.

#include "isa.h"
#include "norm_act_backward.h"
#include "norm_act_forward.h"

namespace torchp2p {
namespace TORCHP2P_ISA {
namespace {

bool valid(const NormActShape& s) {
  const bool sizes = s.n > 0 && s.c > 0 && s.h > 0 && s.w > 0 && s.pad >= 0;
  const bool reflects = s.pad_mode != PadMode::kReflect || (s.pad < s.h && s.pad < s.w) || s.pad == 0;
  const bool groups = s.stat_groups > 0 && s.n % s.stat_groups == 0;
  return sizes && reflects && groups;
}

template <template <class, bool> class Kernel, class T, bool kUniform, class Params>
Status run_kernel(const Params& params) {
  const Plan plan(params.shape);
  Kernel<T, kUniform> kernel(params, plan);
  if (!kernel.ok()) return Status::kOutOfMemory;
  run(kernel, plan);
  if constexpr (std::is_same_v<Params, NormActBackward>) {
    if ((params.grad_weight || params.grad_bias) && !kernel.write_affine_gradients()) return Status::kOutOfMemory;
  }
  return Status::kOk;
}

template <template <class, bool> class Kernel, class T, class Params> Status with_layout(const Params& params) {
  const bool uniform = !params.shape.channels_last || params.shape.c == 1;
  return uniform ? run_kernel<Kernel, T, true>(params) : run_kernel<Kernel, T, false>(params);
}

template <template <class, bool> class Kernel, class Params> Status with_dtype(const Params& params) {
  if (!valid(params.shape)) return Status::kBadArgument;
  switch (params.shape.dtype) {
    case DType::kFloat32: return with_layout<Kernel, float>(params);
    case DType::kBFloat16: return with_layout<Kernel, BFloat16>(params);
    case DType::kFloat16: return with_layout<Kernel, Float16>(params);
    case DType::kFloat64: return with_layout<Kernel, double>(params);
  }
  return Status::kBadArgument;
}

}  // namespace

Status norm_act_forward(const NormActForward& params) { return with_dtype<Forward>(params); }
Status norm_act_backward(const NormActBackward& params) { return with_dtype<Backward>(params); }

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p

TORCHP2P_CPU_ENTRY(norm_act_forward, NormActForward)
TORCHP2P_CPU_ENTRY(norm_act_backward, NormActBackward)
