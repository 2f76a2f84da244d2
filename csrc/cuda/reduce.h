// Reductions over a warp and over a block, always in the same order: the same bits on every run.
#pragma once

#include <cuda_runtime.h>

#include "launch.h"

namespace torchp2p {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kMostWarps = 32;  // in a block

struct Add {
  template <class T> __device__ T operator()(const T& a, const T& b) const { return a + b; }
};

// Count, mean and sum of squared deviations of some values; merging loses nothing that two passes would keep.
template <class A> struct Moments {
  A count, mean, m2;
};

struct MergeMoments {
  template <class A> __device__ Moments<A> operator()(const Moments<A>& a, const Moments<A>& b) const {
    const A count = a.count + b.count, distance = b.mean - a.mean;
    const A share = count > 0 ? b.count / count : A(0);
    return {count, a.mean + distance * share, a.m2 + b.m2 + distance * distance * a.count * share};
  }
};

template <class T> inline __device__ T shuffle_down(const T& value, int distance) {
  return __shfl_down_sync(kAllLanes, value, distance);
}
template <class A> inline __device__ Moments<A> shuffle_down(const Moments<A>& value, int distance) {
  return {shuffle_down(value.count, distance), shuffle_down(value.mean, distance), shuffle_down(value.m2, distance)};
}

// Lane 0 gets merge(lane 0, lane 1, ...) as a tree; the other lanes get something of no use.
template <class T, class Merge> inline __device__ T warp_reduce(T value, const Merge& merge) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) value = merge(value, shuffle_down(value, distance));
  return value;
}

// Every thread gets the reduction over the block, which is one-dimensional and of whole warps. All threads must come.
template <class T, class Merge> inline __device__ T block_reduce(T value, const Merge& merge) {
  TORCHP2P_SHARED(T, parts, kMostWarps);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  value = warp_reduce(value, merge);
  __syncthreads();  // the parts of a reduction before this one have been read
  if (lane == 0) parts[warp] = value;
  __syncthreads();
  T total = parts[0];
  for (int i = 1; i < warps; ++i) total = merge(total, parts[i]);
  return total;
}

}  // namespace torchp2p
