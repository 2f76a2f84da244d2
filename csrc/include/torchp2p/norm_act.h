// norm_act: y = pad(act(norm(x) * weight + bias + residual)). Definition: torchp2p/reference/norm_act.py.
#pragma once

#include <cstdint>

#include "torchp2p/dtype.h"
#include "torchp2p/status.h"
#include "torchp2p/strides.h"

namespace torchp2p {

// The codes are those of torchp2p/ops/norm_act.py.
// Where mean and variance come from: nowhere (no normalisation), taken from x by the forward, taken from x before
// (so the gradient knows that they move with x), or given from outside (running statistics, constants).
enum class Statistics : int { kNone = 0, kTaken = 1, kOwn = 2, kGiven = 3 };
enum class Activation : int { kLeakyRelu = 0, kRelu = 1, kNone = 2, kTanh = 3 };
enum class PadMode : int { kReflect = 0, kReplicate = 1, kZeros = 2 };

// What forward and backward have in common. Vectors over channels and statistics have the accumulator's type.
struct NormActShape {
  std::int64_t n, c, h, w;  // of x
  DType dtype;
  Statistics statistics;     // mean and var are (stat_groups, C), or (C,) for kGiven
  std::int64_t stat_groups;  // runs of n / stat_groups samples share statistics: n is instance norm, 1 batch norm
  double eps;
  Activation act;
  double slope;
  std::int64_t pad;  // pixels on every side of y
  PadMode pad_mode;
  bool channels_last;  // layout of the tensors written: NHWC instead of NCHW, both dense
};

struct NormActForward {
  NormActShape shape;
  const void* x;
  const void* weight;    // (C,) or null
  const void* bias;      // (C,) or null
  const void* residual;  // shape of x, or null
  void* y;               // (N, C, H + 2 pad, W + 2 pad)
  void* mean;            // written for Statistics::kTaken, else read; null for kNone
  void* var;
  void* scratch;  // of norm_act_scratch_cuda(shape) bytes; null on the CPU
  Strides x_stride, residual_stride;
};

struct NormActBackward {
  NormActShape shape;
  const void* grad_y;  // shape of y
  const void* x;
  const void* weight;
  const void* bias;
  const void* residual;  // null also when the activation does not need it
  const void* mean;
  const void* var;
  void* grad_x;         // shape of x
  void* grad_weight;    // (C,) or null
  void* grad_bias;      // (C,) or null
  void* grad_residual;  // shape of x, or null
  void* scratch;        // of norm_act_scratch_cuda(shape) bytes; null on the CPU
  Strides grad_y_stride, x_stride, residual_stride;
};

Status norm_act_forward_cpu(const NormActForward& params);
Status norm_act_backward_cpu(const NormActBackward& params);
Status norm_act_forward_cuda(const NormActForward& params, int device, void* stream);
Status norm_act_backward_cuda(const NormActBackward& params, int device, void* stream);
// For partial sums; enough for forward and backward.
std::int64_t norm_act_scratch_cuda(const NormActShape& shape);

}  // namespace torchp2p
