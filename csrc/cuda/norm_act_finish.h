// Partial sums into statistics, and into the gradients of weight and bias.
#pragma once

#include "norm_act_plan.h"

namespace torchp2p {

constexpr int kFinishChannels = 32, kFinishLanes = 16;

// Merges of one channel's partials: every lane takes each kFinishLanes-th, then lane 0 merges the lanes in order.
// parts has room for a block. The result is lane 0's; all threads must come.
template <class Sum, class Merge>
inline __device__ Sum merge_partials(const Plan& plan, const Sum* partials, int group, int channel, Sum sum,
                                     const Merge& merge, Sum* parts) {
  const int lane = threadIdx.y;
  if (channel < plan.channels)
    for (int i = lane; i < plan.chunks; i += kFinishLanes) sum = merge(sum, partials[plan.partial(group, i, channel)]);
  __syncthreads();  // parts of the group before have been read
  parts[lane * kFinishChannels + threadIdx.x] = sum;
  __syncthreads();
  if (lane == 0)
    for (int other = 1; other < kFinishLanes; ++other) sum = merge(sum, parts[other * kFinishChannels + threadIdx.x]);
  return sum;
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
        merge_partials(plan, partials, group, channel, Moments<double>{0, 0, 0}, MergeMoments{}, parts);
    if (threadIdx.y == 0 && channel < plan.channels) {
      mean[std::int64_t(group) * plan.channels + channel] = A(all.mean);
      var[std::int64_t(group) * plan.channels + channel] = A(all.m2 / all.count);
    }
  }
}

// The means of g' and g' * xhat of every unit, and the gradients of weight and bias, summed over the groups in order.
// Reads all partial sums. Grid: channels / 32, blocks of 32 channels x 16 lanes.
template <class A>
__global__ void __launch_bounds__(kFinishChannels* kFinishLanes)
    norm_act_finish_sums(Plan plan, const GradientSums* partials, GradientSums* unit_means, A* grad_weight,
                         A* grad_bias) {
  TORCHP2P_SHARED(GradientSums, parts, kFinishChannels * kFinishLanes);
  const int channel = blockIdx.x * kFinishChannels + threadIdx.x;
  const double share = 1 / (double(plan.samples) * plan.pixels);
  GradientSums total{0, 0};
  for (int group = 0; group < plan.groups; ++group) {
    const GradientSums all = merge_partials(plan, partials, group, channel, GradientSums{0, 0}, Add{}, parts);
    if (threadIdx.y == 0 && channel < plan.channels) {
      unit_means[std::int64_t(group) * plan.channels + channel] = {all.g * share, all.gx * share};
      total = total + all;
    }
  }
  if (threadIdx.y == 0 && channel < plan.channels) {
    if (grad_weight) grad_weight[channel] = A(total.gx);
    if (grad_bias) grad_bias[channel] = A(total.g);
  }
}

}  // namespace torchp2p
