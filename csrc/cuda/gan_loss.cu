// gan_loss on CUDA: all maps of all scales in one launch, value and slope in one read.
//
// Computes: the sum over maps of the mean of a pointwise loss, and its derivative at every value.
// Memory:   reads each map once, writes its slopes once (when wanted) and one double a piece.
// Parallel: all maps are cut into pieces of kPiece values, whatever map they belong to; a block takes a piece, 16 bytes
//           a load and all loads of a thread on their way before the first is used. Then one block adds the doubles.
#include "launch.h"
#include "pieces.h"
#include "torchp2p/gan_loss.h"
#include "types.h"
#include "vec.h"

namespace torchp2p {
namespace {

constexpr std::int64_t kPiece = 16 * kPieceThreads;
using Maps = PieceTable<GanLossMap, 64>;

template <class A> struct Term {
  A loss, slope;
};

inline __device__ float exponential(float v) { return expf(v); }
inline __device__ double exponential(double v) { return exp(v); }
inline __device__ float log1p_of(float v) { return log1pf(v); }
inline __device__ double log1p_of(double v) { return log1p(v); }

// softplus(q) and its slope, the sigmoid, from exp(-|q|): no overflow whatever q is. A nan stays one.
template <class A> __device__ Term<A> softplus(A q) {
  const A e = exponential(q < 0 ? q : -q);
  return {(q < 0 ? A(0) : q) + log1p_of(e), (q < 0 ? e : A(1)) / (e + 1)};
}

// sign is -1 for target real and +1 for fake: with q = sign * p, all modes but lsgan are one function of q.
template <GanLoss kMode, class A> __device__ Term<A> term(A p, A sign, A target) {
  if constexpr (kMode == GanLoss::kVanilla) {
    const Term<A> t = softplus(p * sign);
    return {t.loss, t.slope * sign};
  }
  if constexpr (kMode == GanLoss::kLsgan) return {(p - target) * (p - target), 2 * (p - target)};
  if constexpr (kMode == GanLoss::kHinge) {
    const A margin = p * sign + 1;
    return {margin < 0 ? A(0) : margin, margin <= 0 ? A(0) : sign};
  }
  return {p * sign, sign};
}

// The losses of the thread's share of a piece, added; their slopes times `scale` where wanted.
template <GanLoss kMode, class T, class A = Accumulator<T>>
__device__ double take_piece(const T* p, A* slopes, std::int64_t size, bool target_is_real, A scale) {
  constexpr int kValues = kPack<T>, kPacks = int(kPiece) / (kPieceThreads * kValues);
  const A sign = target_is_real ? A(-1) : A(1), target = target_is_real ? A(1) : A(0);
  double total = 0;
  if (size < kPiece || !takes_packs(p) || !takes_packs(slopes)) {
    for (std::int64_t i = threadIdx.x; i < size; i += kPieceThreads) {
      const Term<A> t = term<kMode, A>(to_accumulator(p[i]), sign, target);
      total += double(t.loss);
      if (slopes) slopes[i] = t.slope * scale;
    }
    return total;
  }
  Pack<T> packs[kPacks];
#pragma unroll
  for (int k = 0; k < kPacks; ++k) packs[k] = load_pack(p + (k * kPieceThreads + int(threadIdx.x)) * kValues);
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    A sum = 0, slope[kValues];
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      const Term<A> t = term<kMode, A>(to_accumulator(packs[k].values[i]), sign, target);
      sum += t.loss;
      slope[i] = t.slope * scale;
    }
    total += double(sum);
    if (slopes == nullptr) continue;
    A* const to = slopes + (k * kPieceThreads + int(threadIdx.x)) * kValues;
#pragma unroll
    for (int i = 0; i < kValues; i += kPack<A>) {
      Pack<A> out;
#pragma unroll
      for (int j = 0; j < kPack<A>; ++j) out.values[j] = slope[i + j];
      store_pack(to + i, out);
    }
  }
  return total;
}

template <class T>
__global__ void __launch_bounds__(kPieceThreads)
    gan_loss_kernel(const Maps maps, GanLoss mode, bool target_is_real, PieceSums<Accumulator<T>> sums,
                    std::int64_t first_piece) {
  using A = Accumulator<T>;
  const Piece at = maps.find(blockIdx.x, kPiece);
  const GanLossMap& map = maps.entries[at.entry];
  const std::int64_t left = map.count - at.begin, size = left < kPiece ? left : kPiece;
  const T* const p = static_cast<const T*>(map.values) + at.begin;
  A* const slopes = map.slopes ? static_cast<A*>(map.slopes) + at.begin : nullptr;
  const double scale = 1.0 / double(map.count);
  double sum = 0;
  switch (mode) {
    case GanLoss::kVanilla: sum = take_piece<GanLoss::kVanilla>(p, slopes, size, target_is_real, A(scale)); break;
    case GanLoss::kLsgan: sum = take_piece<GanLoss::kLsgan>(p, slopes, size, target_is_real, A(scale)); break;
    case GanLoss::kHinge: sum = take_piece<GanLoss::kHinge>(p, slopes, size, target_is_real, A(scale)); break;
    case GanLoss::kLinear: sum = take_piece<GanLoss::kLinear>(p, slopes, size, target_is_real, A(scale)); break;
  }
  sum = block_reduce(sum, Add{});
  if (threadIdx.x == 0) sums.put(first_piece + blockIdx.x, scale * sum);
}

std::int64_t pieces_of(std::int64_t count) { return (count + kPiece - 1) / kPiece; }

template <class T> Status reduce(const GanLossParams& params, void* stream) {
  std::int64_t pieces = 0;
  for (std::int64_t m = 0; m < params.map_count; ++m) pieces += pieces_of(params.maps[m].count);
  auto* const loss = static_cast<Accumulator<T>*>(params.loss);
  const PieceSums<Accumulator<T>> sums{static_cast<double*>(params.scratch), pieces == 1 ? loss : nullptr};
  Status status = Status::kOk;
  std::int64_t done = 0;
  for (std::int64_t m = 0; m < params.map_count && status == Status::kOk;) {
    Maps maps;
    for (; m < params.map_count && !maps.full(); ++m) maps.add(params.maps[m], params.maps[m].count, kPiece);
    status = launch("gan_loss", gan_loss_kernel<T>, {unsigned(maps.pieces()), kPieceThreads}, stream, maps, params.mode,
                    params.target_is_real, sums, done);
    done += maps.pieces();
  }
  return status == Status::kOk ? add_pieces(sums, pieces, loss, stream) : status;
}

}  // namespace

std::int64_t gan_loss_scratch_cuda(const std::int64_t* counts, std::int64_t map_count) {
  std::int64_t pieces = 0;
  for (std::int64_t m = 0; m < map_count; ++m) pieces += pieces_of(counts[m]);
  return pieces > 1 ? pieces * std::int64_t{sizeof(double)} : 0;
}

Status gan_loss_cuda(const GanLossParams& params, int device, void* stream) {
  for (std::int64_t m = 0; m < params.map_count; ++m) {
    if (params.maps[m].count <= 0 || params.maps[m].values == nullptr) return Status::kBadArgument;
  }
  return on_device(device, [&] {
    return with_type(params.dtype, [&](auto type) { return reduce<typename decltype(type)::type>(params, stream); });
  });
}

}  // namespace torchp2p
