// label_conv2d on the CPU.
//
// Forward:  an output pixel sums, for each kernel row, one weight vector per run of equal labels that its window
//           meets: usually one, because labels are constant over large areas. The vectors are sums of the weights
//           over an interval of kernel columns, made once per call for every label, kernel row and interval. A
//           pixel whose windows all continue the runs of its left neighbour's takes its sum over. Dense channels
//           are convolved directly, four pixels at a time.
// Backward: for each run and kernel row, the gradients of the output row are summed once where all kernel columns
//           see the run, then extended column by column. Dense channels and the bias (a channel of ones) are
//           correlated directly.
// Memory:   forward reads labels and dense channels and writes y; backward reads grad_y. Tables hold
//           kh * kw (kw + 1) / 2 * labels * O sums (forward) and kh * kw * labels * O per block of rows (backward).
// Parallel: forward over output rows; backward over blocks of output rows, cut by the shape alone, whose tables are
//           added in their order in double. Both work on tiles of up to four registers of output channels.

#include "isa.h"
#include "label_conv2d_backward.h"
#include "label_conv2d_forward.h"

namespace torchp2p {
namespace TORCHP2P_ISA {
namespace {

template <class T> Status forward(const LabelConv2dForward& params) {
  InputRows<Accumulator<T>> rows(params.shape, params.input);
  if (!rows.ok()) return Status::kOutOfMemory;
  const std::int64_t bad_label = rows.prepare();
  if (bad_label >= 0 && !params.ignore_out_of_range) {
    *params.bad_label = bad_label;
    return Status::kBadArgument;
  }
  const Forward<T> kernel(params, rows);
  if (!kernel.ok()) return Status::kOutOfMemory;
  kernel.run();
  return Status::kOk;
}

template <class T> Status backward(const LabelConv2dBackward& params) {
  InputRows<Accumulator<T>> rows(params.shape, params.input);
  if (!rows.ok()) return Status::kOutOfMemory;
  rows.prepare();
  const Backward<T> kernel(params, rows);
  if (!kernel.ok()) return Status::kOutOfMemory;
  kernel.run();
  return Status::kOk;
}

}  // namespace

Status label_conv2d_forward(const LabelConv2dForward& params) {
  *params.bad_label = -1;
  if (!params.shape.valid()) return Status::kBadArgument;
  switch (params.shape.dtype) {
    case DType::kFloat32: return forward<float>(params);
    case DType::kBFloat16: return forward<BFloat16>(params);
    case DType::kFloat16: return forward<Float16>(params);
    case DType::kFloat64: return forward<double>(params);
  }
  return Status::kBadArgument;
}

Status label_conv2d_backward(const LabelConv2dBackward& params) {
  if (!params.shape.valid()) return Status::kBadArgument;
  switch (params.shape.dtype) {
    case DType::kFloat32: return backward<float>(params);
    case DType::kBFloat16: return backward<BFloat16>(params);
    case DType::kFloat16: return backward<Float16>(params);
    case DType::kFloat64: return backward<double>(params);
  }
  return Status::kBadArgument;
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p

TORCHP2P_CPU_ENTRY(label_conv2d_forward, LabelConv2dForward)
TORCHP2P_CPU_ENTRY(label_conv2d_backward, LabelConv2dBackward)
