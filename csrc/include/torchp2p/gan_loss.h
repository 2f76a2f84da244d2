// gan_loss: sum over maps of the mean of a pointwise loss, and its slopes. Definition: torchp2p/reference/gan_loss.py.
#pragma once

#include <cstdint>

#include "torchp2p/dtype.h"
#include "torchp2p/status.h"

namespace torchp2p {

// kLinear is wgan, and hinge as the generator sees it. Codes: torchp2p/ops/gan_loss.py.
enum class GanLoss : int { kVanilla = 0, kLsgan = 1, kHinge = 2, kLinear = 3 };

struct GanLossMap {
  const void* values;  // dense, any order
  void* slopes;        // d loss / d values, same order, in the accumulator's type; null when not wanted
  std::int64_t count;  // more than 0
};

struct GanLossParams {
  const GanLossMap* maps;
  std::int64_t map_count;
  DType dtype;  // of all maps
  GanLoss mode;
  bool target_is_real;
  void* loss;     // one value of the accumulator's type
  void* scratch;  // of gan_loss_scratch_cuda() bytes; null on the CPU
};

Status gan_loss_cpu(const GanLossParams& params);
Status gan_loss_cuda(const GanLossParams& params, int device, void* stream);
// Bytes for partial sums over maps of these counts.
std::int64_t gan_loss_scratch_cuda(const std::int64_t* counts, std::int64_t map_count);

}  // namespace torchp2p
