// feature_matching_loss: sum over pairs of weight * mean |fake - real|, and its gradient with respect to fake.
// Definition: torchp2p/reference/feature_matching_loss.py.
#pragma once

#include <cstdint>

#include "torchp2p/dtype.h"
#include "torchp2p/status.h"

namespace torchp2p {

constexpr int kFeatureMaxDims = 64;  // torch's own limit

// Values are taken in the order in which the gradient of fake lies in memory: `order` holds the strides of a
// dense tensor of this shape. Distances are in elements; 0 is allowed in fake_stride and real_stride.
struct FeaturePair {
  const void* fake;
  const void* real;
  void* signs;  // sign(fake - real), or null when not wanted; feature_sign_bytes(count) bytes
  int dims;
  const std::int64_t* shape;  // no size is 0
  const std::int64_t* order;
  const std::int64_t* fake_stride;
  const std::int64_t* real_stride;
  double weight;
};

// Signs take two bits each. How they lie is known to the forward and backward of one backend, and to no one else.
constexpr std::int64_t feature_sign_bytes(std::int64_t count) { return (count + 255) / 256 * 64; }

struct FeatureMatchingForward {
  const FeaturePair* pairs;
  std::int64_t pair_count;
  DType dtype;    // of all tensors
  void* loss;     // one value of the accumulator's type
  void* scratch;  // of feature_matching_loss_scratch_cuda() bytes; null on the CPU
};

struct FeatureGradient {
  const void* signs;   // as the forward left them
  void* grad;          // dense, in the forward's order
  std::int64_t count;  // more than 0
  double weight;
};

struct FeatureMatchingBackward {
  const FeatureGradient* gradients;
  std::int64_t gradient_count;
  DType dtype;
  const void* grad_loss;  // one value of the accumulator's type
};

Status feature_matching_loss_forward_cpu(const FeatureMatchingForward& params);
Status feature_matching_loss_backward_cpu(const FeatureMatchingBackward& params);
Status feature_matching_loss_forward_cuda(const FeatureMatchingForward& params, int device, void* stream);
Status feature_matching_loss_backward_cuda(const FeatureMatchingBackward& params, int device, void* stream);
// Bytes for partial sums over pairs of these counts of values.
std::int64_t feature_matching_loss_scratch_cuda(const std::int64_t* counts, std::int64_t pair_count);

}  // namespace torchp2p
