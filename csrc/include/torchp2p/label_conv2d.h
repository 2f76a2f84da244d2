// label_conv2d: convolution of cat(one_hot(labels), dense), the one-hot tensor never built. Definition:
// torchp2p/reference/label_conv2d.py.
#pragma once

#include <cstdint>

#include "torchp2p/dtype.h"
#include "torchp2p/norm_act.h"  // PadMode, Strides
#include "torchp2p/status.h"

namespace torchp2p {

// The codes are those of torchp2p/ops/label_conv2d.py.
enum class LabelType : int {
  kUInt8 = 0,
  kInt8 = 1,
  kUInt16 = 2,
  kInt16 = 3,
  kUInt32 = 4,
  kInt32 = 5,
  kUInt64 = 6,
  kInt64 = 7
};

// What forward and backward have in common. Weights, dense channels and their gradients have the accumulator's
// type, and the weight has classes + dense_channels input channels, the classes first.
struct LabelConv2dShape {
  std::int64_t n, h, w;  // of labels and dense
  std::int64_t classes, dense_channels, out_channels;
  std::int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
  PadMode pad_mode;
  DType dtype;  // of y
  LabelType label_type;

  // Whether there is anything to do and the numbers make sense.
  bool valid() const {
    const bool sizes = n > 0 && h >= 0 && w >= 0 && classes > 0 && dense_channels >= 0 && out_channels > 0;
    const bool window = kernel_h > 0 && kernel_w > 0 && stride_h > 0 && stride_w > 0 && pad_h >= 0 && pad_w >= 0;
    const bool fits = h + 2 * pad_h >= kernel_h && w + 2 * pad_w >= kernel_w;
    const bool mirrors = (pad_h == 0 || pad_h < h) && (pad_w == 0 || pad_w < w);
    const bool repeats = h > 0 && w > 0;
    const bool borders = pad_mode == PadMode::kReflect     ? mirrors
                         : pad_mode == PadMode::kReplicate ? repeats
                                                           : pad_mode == PadMode::kZeros;
    return sizes && window && fits && borders && classes < INT32_MAX && w + 2 * pad_w < INT32_MAX;
  }

  std::int64_t out_h() const { return (h + 2 * pad_h - kernel_h) / stride_h + 1; }
  std::int64_t out_w() const { return (w + 2 * pad_w - kernel_w) / stride_w + 1; }
};

struct LabelConv2dInput {
  const void* labels;
  const void* dense;  // (N, D, H, W), or null
  Strides label_stride, dense_stride;
};

struct LabelConv2dForward {
  LabelConv2dShape shape;
  LabelConv2dInput input;
  const void* weight;
  const void* bias;  // (O,) or null
  void* y;           // dense, NHWC if channels_last
  Strides weight_stride;
  bool channels_last;
  bool ignore_out_of_range;  // an id outside 0..classes-1 adds nothing, rather than being an error
  std::int64_t* bad_label;   // written: n * H * W + y * W + x of the first such id that is an error, or -1
  void* scratch;             // of label_conv2d_forward_scratch_cuda(shape) bytes; null on the CPU
};

// Gradients of weight and bias. An id out of range adds nothing here: the forward has refused it where it must.
struct LabelConv2dBackward {
  LabelConv2dShape shape;
  LabelConv2dInput input;
  const void* grad_y;
  void* grad_weight;
  void* grad_bias;  // (O,) or null
  void* scratch;    // of label_conv2d_backward_scratch_cuda(shape) bytes; null on the CPU
  Strides grad_y_stride, grad_weight_stride;
};

// The gradient of the dense channels; the labels do not matter to it.
struct LabelConv2dDenseGradient {
  LabelConv2dShape shape;
  const void* grad_y;
  const void* weight;
  void* grad_dense;  // (N, D, H, W), type of y, dense, NHWC if channels_last
  void* scratch;     // of label_conv2d_dense_gradient_scratch_cuda(shape) bytes; null on the CPU
  Strides grad_y_stride, weight_stride;
  bool channels_last;
};

// kBadArgument with *bad_label >= 0: an id is out of range, and y is not written.
Status label_conv2d_forward_cpu(const LabelConv2dForward& params);
Status label_conv2d_backward_cpu(const LabelConv2dBackward& params);
Status label_conv2d_dense_gradient_cpu(const LabelConv2dDenseGradient& params);

// On a device bad_label is an address there, or null: nobody looks. y is written in any case, and an id out of range
// has added nothing to it: who wants to know must wait for the stream and read.
Status label_conv2d_forward_cuda(const LabelConv2dForward& params, int device, void* stream);
Status label_conv2d_backward_cuda(const LabelConv2dBackward& params, int device, void* stream);
Status label_conv2d_dense_gradient_cuda(const LabelConv2dDenseGradient& params, int device, void* stream);
std::int64_t label_conv2d_forward_scratch_cuda(const LabelConv2dShape& shape);
std::int64_t label_conv2d_backward_scratch_cuda(const LabelConv2dShape& shape);
std::int64_t label_conv2d_dense_gradient_scratch_cuda(const LabelConv2dShape& shape);

}  // namespace torchp2p
