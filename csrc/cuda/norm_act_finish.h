// Partial sums into those of units, and these into statistics and the gradients of weight and bias.
#pragma once

#include "norm_act_plan.h"

namespace torchp2p {

constexpr int kFinishChannels = 32, kFinishLanes = 16;

// Merges what the lanes of a channel hold, in their order, into lane 0's. parts has room for a block; all threads come.
template <class Sum, class Merge> inline __device__ Sum merge_lanes(Sum sum, const Merge& merge, Sum* parts) {
  __syncthreads();  // parts of the merge before have been read
  parts[threadIdx.y * kFinishChannels + threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0)
    for (int lane = 1; lane < kFinishLanes; ++lane) sum = merge(sum, parts[lane * kFinishChannels + threadIdx.x]);
  return sum;
}

// Merges the partials of one channel of a group, of which every lane takes each kFinishLanes-th; lane 0 has the result.
template <class Sum, class Merge>
inline __device__ Sum merge_chunks(const Plan& plan, const Sum* partials, int group, int channel, Sum sum,
                                   const Merge& merge, Sum* parts) {
  if (channel < plan.channels)
    for (int i = threadIdx.y; i < plan.chunks; i += kFinishLanes)
      sum = merge(sum, partials[plan.partial(group, i, channel)]);
  return merge_lanes(sum, merge, parts);
}

// Mean and variance of every unit. Reads all partial moments, writes 2 values a unit.
// Grid: (channels / 32, groups), blocks of 32 channels x 16 lanes.
template <class A>
__global__ void __launch_bounds__(kFinishChannels* kFinishLanes)
    norm_act_finish_moments(Plan plan, const Moments<double>* partials, A* mean, A* var) {
  TORCHP2P_SHARED(Moments<double>, parts, kFinishChannels * kFinishLanes);
  const int channel = blockIdx.x * kFinishChannels + threadIdx.x;
  for (int group = blockIdx.y; group < plan.groups; group += gridDim.y) {
    const Moments<double> all =
        merge_chunks(plan, partials, group, channel, Moments<double>{0, 0, 0}, MergeMoments{}, parts);
    if (threadIdx.y == 0 && channel < plan.channels) {
      mean[std::int64_t(group) * plan.channels + channel] = A(all.mean);
      var[std::int64_t(group) * plan.channels + channel] = A(all.m2 / all.count);
    }
  }
}

// The sums of g' and g' * xhat of every unit. Reads all partial sums, writes 2 values a unit.
// Grid: as for the moments.
static __global__ void __launch_bounds__(kFinishChannels* kFinishLanes)
    norm_act_finish_sums(Plan plan, const GradientSums* partials, GradientSums* unit_sums) {
  TORCHP2P_SHARED(GradientSums, parts, kFinishChannels * kFinishLanes);
  const int channel = blockIdx.x * kFinishChannels + threadIdx.x;
  for (int group = blockIdx.y; group < plan.groups; group += gridDim.y) {
    const GradientSums all = merge_chunks(plan, partials, group, channel, GradientSums{0, 0}, Add{}, parts);
    if (threadIdx.y == 0 && channel < plan.channels) unit_sums[std::int64_t(group) * plan.channels + channel] = all;
  }
}

// The gradients of weight and bias: the sums of their units over the groups. Reads 2 values a unit.
// Grid: channels / 32, blocks of 32 channels x 16 lanes; every lane takes each 16th group.
template <class A>
__global__ void __launch_bounds__(kFinishChannels* kFinishLanes)
    norm_act_finish_affine(Plan plan, const GradientSums* unit_sums, A* grad_weight, A* grad_bias) {
  TORCHP2P_SHARED(GradientSums, parts, kFinishChannels * kFinishLanes);
  const int channel = blockIdx.x * kFinishChannels + threadIdx.x;
  GradientSums all{0, 0};
  if (channel < plan.channels)
    for (int group = threadIdx.y; group < plan.groups; group += kFinishLanes)
      all = all + unit_sums[std::int64_t(group) * plan.channels + channel];
  all = merge_lanes(all, Add{}, parts);
  if (threadIdx.y > 0 || channel >= plan.channels) return;
  if (grad_weight) grad_weight[channel] = A(all.gx);
  if (grad_bias) grad_bias[channel] = A(all.g);
}

}  // namespace torchp2p
