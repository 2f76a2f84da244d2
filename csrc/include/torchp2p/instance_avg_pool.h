// instance_avg_pool: the mean of x over the pixels of each id of each sample, written back to those pixels.
// Definition: torchp2p/reference/instance_avg_pool.py.
#pragma once

#include <cstdint>

#include "torchp2p/dtype.h"
#include "torchp2p/status.h"
#include "torchp2p/strides.h"

namespace torchp2p {

struct InstanceAvgPoolParams {
  const void* x;
  const void* ids;  // (N, 1, H, W): integers of id_bytes bytes, told apart by their bits alone
  void* y;          // shape of x, dense
  void* scratch;    // of instance_avg_pool_scratch_cuda() bytes; null on the CPU
  std::int64_t n, c, h, w;
  Strides x_stride, ids_stride;
  DType dtype;
  int id_bytes;        // 1, 2, 4 or 8
  bool channels_last;  // layout of y: NHWC instead of NCHW
};

Status instance_avg_pool_cpu(const InstanceAvgPoolParams& params);
Status instance_avg_pool_cuda(const InstanceAvgPoolParams& params, int device, void* stream);
// Bytes for runs of equal ids. Depends on the sizes and the dtype alone.
std::int64_t instance_avg_pool_scratch_cuda(const InstanceAvgPoolParams& params);

}  // namespace torchp2p
