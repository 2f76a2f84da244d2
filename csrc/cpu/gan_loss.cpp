// gan_loss on the CPU: every map of every scale in one parallel region, value and slope in one read.
//
// Memory:   reads each map once, writes its slopes once (when wanted).
// Parallel: all maps are cut into pieces of kPiece values, whatever map they belong to; a piece leaves one
//           double, and the doubles are added in order, so the loss does not depend on the threads.

#include <type_traits>

#include "buffer.h"
#include "isa.h"
#include "parallel.h"
#include "pieces.h"
#include "softplus.h"
#include "torchp2p/gan_loss.h"

namespace torchp2p {
namespace TORCHP2P_ISA {
namespace {

constexpr std::int64_t kPiece = 8192, kBlock = 1024;
constexpr int kSums = 4;

// sign is -1 for target real and +1 for fake: with q = sign * p, all modes but lsgan are one function of q.
template <GanLoss kMode, class A> inline Term<A> term(Vec<A> p, A sign, A target) {
  if constexpr (kMode == GanLoss::kVanilla) {
    const Term<A> t = softplus(p * sign);
    return {t.loss, t.slope * sign};
  }
  if constexpr (kMode == GanLoss::kLsgan) return {(p - target) * (p - target), 2 * (p - target)};
  if constexpr (kMode == GanLoss::kHinge) {
    const Vec<A> margin = p * sign + 1;
    return {margin < 0 ? Vec<A>{} : margin, margin <= 0 ? Vec<A>{} : broadcast(sign)};
  }
  return {p * sign, broadcast(sign)};
}

template <class Body> inline void with_mode(GanLoss mode, const Body& body) {
  switch (mode) {
    case GanLoss::kVanilla: return body(std::integral_constant<GanLoss, GanLoss::kVanilla>{});
    case GanLoss::kLsgan: return body(std::integral_constant<GanLoss, GanLoss::kLsgan>{});
    case GanLoss::kHinge: return body(std::integral_constant<GanLoss, GanLoss::kHinge>{});
    case GanLoss::kLinear: return body(std::integral_constant<GanLoss, GanLoss::kLinear>{});
  }
}

// Sum of the losses of `size` values; their slopes times `scale` where wanted.
template <GanLoss kMode, class T, class A = Accumulator<T>>
double piece(bool target_is_real, const T* p, A* slopes, std::int64_t size, double scale) {
  constexpr std::int64_t kStep = kLanes<A>;
  const A sign = target_is_real ? A(-1) : A(1), target = target_is_real ? A(1) : A(0);
  const auto take = [&](std::int64_t i, Vec<A>& sum) {
    const Term<A> t = term<kMode, A>(load(p + i), sign, target);
    sum += t.loss;
    if (slopes) store(slopes + i, t.slope * static_cast<A>(scale));
  };
  double total = 0;
  std::int64_t begin = 0;
  if constexpr (kMode == GanLoss::kVanilla && std::is_same_v<A, float>) {
    const std::int64_t whole = size / kStep * kStep;
    const auto add = slopes ? add_near_softplus<true, T> : add_near_softplus<false, T>;
    if (add(p, slopes, whole, sign, sign * static_cast<float>(scale), total)) begin = whole;
  }
  for (; begin < size; begin += kBlock) {
    const std::int64_t end = begin + kBlock < size ? begin + kBlock : size;
    Vec<A> sum[kSums] = {};  // several, so that an addition need not wait for the one before
    std::int64_t i = begin;
    for (; i + kSums * kStep <= end; i += kSums * kStep) {
#pragma GCC unroll 4
      for (int k = 0; k < kSums; ++k) take(i + k * kStep, sum[k]);
    }
    for (; i + kStep <= end; i += kStep) take(i, sum[0]);
    total += sum_lanes<A>((sum[0] + sum[1]) + (sum[2] + sum[3]));
    if (i == end) continue;
    const int lanes = static_cast<int>(end - i);
    const Term<A> t = term<kMode, A>(load_some(p + i, lanes, Vec<A>{}), sign, target);
    for (int lane = 0; lane < lanes; ++lane) total += static_cast<double>(t.loss[lane]);
    if (slopes) store_some(slopes + i, t.slope * static_cast<A>(scale), lanes);
  }
  return total;
}

template <class T> Status reduce(const GanLossParams& params) {
  const auto count = [&](std::int64_t m) { return params.maps[m].count; };
  std::int64_t values = 0, pieces = 0;
  for (std::int64_t m = 0; m < params.map_count; ++m) {
    values += count(m);
    pieces += pieces_of(count(m), kPiece);
  }
  const Buffer<double> sums(1, pieces);
  if (!sums.ok()) return Status::kOutOfMemory;
  parallel_for(pieces, thread_count(values), [&](std::int64_t number, int) {
    const Piece at = find_piece(number, kPiece, count);
    const GanLossMap& map = params.maps[at.array];
    const T* p = static_cast<const T*>(map.values) + at.begin;
    auto* slopes = map.slopes ? static_cast<Accumulator<T>*>(map.slopes) + at.begin : nullptr;
    const double scale = 1.0 / static_cast<double>(map.count);
    with_mode(params.mode, [&](auto mode) {
      sums.piece(0)[number] = scale * piece<mode.value, T>(params.target_is_real, p, slopes, at.size, scale);
    });
  });
  double total = 0;
  for (std::int64_t i = 0; i < pieces; ++i) total += sums.piece(0)[i];
  *static_cast<Accumulator<T>*>(params.loss) = static_cast<Accumulator<T>>(total);
  return Status::kOk;
}

}  // namespace

Status gan_loss(const GanLossParams& params) {
  for (std::int64_t m = 0; m < params.map_count; ++m) {
    if (params.maps[m].count <= 0 || params.maps[m].values == nullptr) return Status::kBadArgument;
  }
  switch (params.dtype) {
    case DType::kFloat32: return reduce<float>(params);
    case DType::kBFloat16: return reduce<BFloat16>(params);
    case DType::kFloat16: return reduce<Float16>(params);
    case DType::kFloat64: return reduce<double>(params);
  }
  return Status::kBadArgument;
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p

TORCHP2P_CPU_ENTRY(gan_loss, GanLossParams)
