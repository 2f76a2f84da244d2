// feature_matching_loss on CUDA: all pairs in one launch.
//
// Computes: the sum over pairs of weight * mean |fake - real| and, two bits a value, the signs of the differences; then
//           from the signs the gradient of fake.
// Memory:   forward reads fake and real once, writes the signs (when wanted) and one double a piece; backward reads the
//           signs and writes the gradient. Taking the signs again instead would read fake and real twice.
// Parallel: all pairs are cut into pieces of kPiece values, whatever pair they belong to; a block takes a piece, a warp
// a
//           group of it, with 16 bytes a load and several on their way. Then one block adds the doubles.
#include "launch.h"
#include "pieces.h"
#include "torchp2p/feature_matching_loss.h"
#include "types.h"
#include "vec.h"

namespace torchp2p {
namespace {

constexpr int kLaneValues = 8;                     // of a group in one lane; their signs are 16 bits
constexpr std::int64_t kGroup = 32 * kLaneValues;  // values whose signs a warp writes at once: 64 bytes
constexpr std::int64_t kPiece = 8 * kGroup * (kPieceThreads / kWarp);

// How a pair lies in memory where it is not dense: sizes from the slowest dimension to the fastest of the gradient's
// order, and how far values of fake and of real are apart.
struct Dimension {
  std::int64_t size, fake_stride, real_stride;
};

struct Pair {
  const void* fake;
  const void* real;
  std::uint16_t* signs;
  std::int64_t count;
  double scale;     // weight / count
  int dims, first;  // its dimensions in the pool; none if both are dense
};

constexpr int kMostPairs = 16, kPool = 64;
static_assert(kPool >= kFeatureMaxDims, "any pair fits into a launch of its own");

struct Pairs {
  PieceTable<Pair, kMostPairs> table;
  Dimension pool[kPool];
  int used = 0;
};

struct Gradient {
  const std::uint16_t* signs;
  void* grad;
  std::int64_t count;
  double scale;  // weight / count
};
using Gradients = PieceTable<Gradient, 64>;

// The place among the values of a group of value `i` of a lane: packs of all lanes side by side.
template <class T> inline __device__ int place_of(int lane, int i) {
  return (i / kPack<T> * kWarp + lane) * kPack<T> + i % kPack<T>;
}

// ------------------------------------------------------------------------------------------ forward

struct Offsets {
  std::int64_t fake, real;
};

inline __device__ Offsets offsets_of(const Pair& pair, const Dimension* pool, std::int64_t value) {
  if (pair.dims == 0) return {value, value};
  Offsets at{0, 0};
  for (int d = pair.dims - 1; d > 0; --d) {
    const Dimension& dimension = pool[pair.first + d];
    const std::int64_t next = value / dimension.size, index = value - next * dimension.size;
    at.fake += index * dimension.fake_stride;
    at.real += index * dimension.real_stride;
    value = next;
  }
  const Dimension& slowest = pool[pair.first];
  return {at.fake + value * slowest.fake_stride, at.real + value * slowest.real_stride};
}

// The values of a lane in the group that begins at value `begin`; zeros, which do not differ, after the last.
template <class T> struct Values {
  Accumulator<T> fake[kLaneValues], real[kLaneValues];

  __device__ void load_packs(const T* fakes, const T* reals, int lane) {
    constexpr int kValues = kPack<T>;
    Pack<T> f[kLaneValues / kValues], r[kLaneValues / kValues];
#pragma unroll
    for (int k = 0; k < kLaneValues / kValues; ++k) {
      f[k] = load_pack(fakes + place_of<T>(lane, k * kValues));
      r[k] = load_pack(reals + place_of<T>(lane, k * kValues));
    }
#pragma unroll
    for (int i = 0; i < kLaneValues; ++i) {
      fake[i] = to_accumulator(f[i / kValues].values[i % kValues]);
      real[i] = to_accumulator(r[i / kValues].values[i % kValues]);
    }
  }

  __device__ void load_each(const Pair& pair, const Dimension* pool, std::int64_t begin, int lane) {
#pragma unroll
    for (int i = 0; i < kLaneValues; ++i) {
      const std::int64_t value = begin + place_of<T>(lane, i);
      fake[i] = real[i] = 0;
      if (value >= pair.count) continue;
      const Offsets at = offsets_of(pair, pool, value);
      fake[i] = to_accumulator(static_cast<const T*>(pair.fake)[at.fake]);
      real[i] = to_accumulator(static_cast<const T*>(pair.real)[at.real]);
    }
  }

  __device__ double sum() const {
    Accumulator<T> total = 0;
#pragma unroll
    for (int i = 0; i < kLaneValues; ++i) total += fabs(fake[i] - real[i]);
    return double(total);
  }

  // 1, 0 or -1 in two bits each, the first value in the lowest; a nan compares neither way, hence 0 as in torch.
  __device__ std::uint16_t signs() const {
    unsigned bits = 0;
#pragma unroll
    for (int i = 0; i < kLaneValues; ++i) {
      bits |= (fake[i] > real[i] ? 1u : fake[i] < real[i] ? 3u : 0u) << (2 * i);
    }
    return std::uint16_t(bits);
  }
};

template <class T>
__global__ void __launch_bounds__(kPieceThreads)
    feature_matching_forward_kernel(const Pairs pairs, PieceSums<Accumulator<T>> sums, std::int64_t first_piece) {
  const Piece at = pairs.table.find(blockIdx.x, kPiece);
  const Pair& pair = pairs.table.entries[at.entry];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const T* const fake = static_cast<const T*>(pair.fake);
  const T* const real = static_cast<const T*>(pair.real);
  const bool packs = pair.dims == 0 && takes_packs(fake) && takes_packs(real);
  const std::int64_t end = at.begin + kPiece < pair.count ? at.begin + kPiece : pair.count;
  double sum = 0;
  const auto take = [&](const Values<T>& values, std::int64_t begin) {
    sum += values.sum();
    if (pair.signs != nullptr) pair.signs[begin / kLaneValues + lane] = values.signs();
  };
  std::int64_t begin = at.begin + warp * kGroup;
  constexpr std::int64_t kStep = kGroup * (kPieceThreads / kWarp);
  if (packs) {
    for (; begin + kStep + kGroup <= end; begin += 2 * kStep) {  // two groups are on their way at a time
      Values<T> first, second;
      first.load_packs(fake + begin, real + begin, lane);
      second.load_packs(fake + begin + kStep, real + begin + kStep, lane);
      take(first, begin);
      take(second, begin + kStep);
    }
  }
  for (; begin < end; begin += kStep) {
    Values<T> values;
    if (packs && begin + kGroup <= end) {
      values.load_packs(fake + begin, real + begin, lane);
    } else {
      values.load_each(pair, pairs.pool, begin, lane);
    }
    take(values, begin);
  }
  sum = block_reduce(sum, Add{});
  if (threadIdx.x == 0) sums.put(first_piece + blockIdx.x, pair.scale * sum);
}

// The dimensions of a pair from the slowest to the fastest of the gradient's order, those of size 1 left out, and
// neighbours that both tensors walk through without a break made one. Returns their number, 0 for a dense pair.
int find_dimensions(const FeaturePair& pair, Dimension* dimensions) {
  int sorted[kFeatureMaxDims], kept = 0, dims = 0;
  for (int d = 0; d < pair.dims; ++d) {
    if (pair.shape[d] == 1) continue;
    int place = kept++;
    for (; place > 0 && pair.order[sorted[place - 1]] < pair.order[d]; --place) sorted[place] = sorted[place - 1];
    sorted[place] = d;
  }
  for (int i = 0; i < kept; ++i) {
    const int d = sorted[i];
    const Dimension next{pair.shape[d], pair.fake_stride[d], pair.real_stride[d]};
    if (dims > 0) {
      Dimension& last = dimensions[dims - 1];
      if (last.fake_stride == next.size * next.fake_stride && last.real_stride == next.size * next.real_stride) {
        last = {last.size * next.size, next.fake_stride, next.real_stride};
        continue;
      }
    }
    dimensions[dims++] = next;
  }
  const bool dense = dims == 0 || (dims == 1 && dimensions[0].fake_stride == 1 && dimensions[0].real_stride == 1);
  return dense ? 0 : dims;
}

std::int64_t values_of(const FeaturePair& pair) {
  std::int64_t product = 1;
  for (int d = 0; d < pair.dims; ++d) product *= pair.shape[d];
  return product;
}

std::int64_t pieces_of(std::int64_t count) { return (count + kPiece - 1) / kPiece; }

// Adds the pair to the launch, unless it is full.
bool add_pair(const FeaturePair& pair, Pairs& pairs) {
  Dimension dimensions[kFeatureMaxDims];
  const int dims = find_dimensions(pair, dimensions);
  if (pairs.table.full() || pairs.used + dims > kPool) return false;
  const std::int64_t count = values_of(pair);
  const double scale = pair.weight / double(count);
  pairs.table.add({pair.fake, pair.real, static_cast<std::uint16_t*>(pair.signs), count, scale, dims, pairs.used},
                  count, kPiece);
  for (int d = 0; d < dims; ++d) pairs.pool[pairs.used++] = dimensions[d];
  return true;
}

template <class T> Status forward(const FeatureMatchingForward& params, void* stream) {
  std::int64_t pieces = 0;
  for (std::int64_t i = 0; i < params.pair_count; ++i) pieces += pieces_of(values_of(params.pairs[i]));
  auto* const loss = static_cast<Accumulator<T>*>(params.loss);
  const PieceSums<Accumulator<T>> sums{static_cast<double*>(params.scratch), pieces == 1 ? loss : nullptr};
  Status status = Status::kOk;
  std::int64_t done = 0;
  for (std::int64_t i = 0; i < params.pair_count && status == Status::kOk;) {
    Pairs pairs;
    while (i < params.pair_count && add_pair(params.pairs[i], pairs)) ++i;
    status = launch("feature_matching_loss_forward", feature_matching_forward_kernel<T>,
                    {unsigned(pairs.table.pieces()), kPieceThreads}, stream, pairs, sums, done);
    done += pairs.table.pieces();
  }
  return status == Status::kOk ? add_pieces(sums, pieces, loss, stream) : status;
}

// ------------------------------------------------------------------------------------------ backward

template <class T>
__global__ void __launch_bounds__(kPieceThreads)
    feature_matching_backward_kernel(const Gradients gradients, const Accumulator<T>* grad_loss) {
  using A = Accumulator<T>;
  const Piece at = gradients.find(blockIdx.x, kPiece);
  const Gradient& g = gradients.entries[at.entry];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  // A gradient has three values only: they are rounded once. The one of equal values is not 0 if the scale is none.
  const A scale = A(double(*grad_loss) * g.scale);
  const T zero = from_accumulator<T>(scale * 0), up = from_accumulator<T>(scale), down = from_accumulator<T>(-scale);
  T* const grad = static_cast<T*>(g.grad);
  const bool packs = takes_packs(grad);
  const std::int64_t end = at.begin + kPiece < g.count ? at.begin + kPiece : g.count;
#pragma unroll 4
  for (std::int64_t begin = at.begin + warp * kGroup; begin < end; begin += kGroup * (kPieceThreads / kWarp)) {
    const unsigned bits = g.signs[begin / kLaneValues + lane];
    const auto value = [&](int i) {
      const unsigned sign = bits >> (2 * i) & 3;
      return sign == 0 ? zero : sign == 1 ? up : down;
    };
    if (packs && begin + kGroup <= end) {
#pragma unroll
      for (int k = 0; k < kLaneValues; k += kPack<T>) {
        Pack<T> pack;
#pragma unroll
        for (int i = 0; i < kPack<T>; ++i) pack.values[i] = value(k + i);
        store_pack(grad + begin + place_of<T>(lane, k), pack);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kLaneValues; ++i) {
        const std::int64_t place = begin + place_of<T>(lane, i);
        if (place < end) grad[place] = value(i);
      }
    }
  }
}

template <class T> Status backward(const FeatureMatchingBackward& params, void* stream) {
  Status status = Status::kOk;
  for (std::int64_t i = 0; i < params.gradient_count && status == Status::kOk;) {
    Gradients gradients;
    for (; i < params.gradient_count && !gradients.full(); ++i) {
      const FeatureGradient& g = params.gradients[i];
      gradients.add({static_cast<const std::uint16_t*>(g.signs), g.grad, g.count, g.weight / double(g.count)}, g.count,
                    kPiece);
    }
    status = launch("feature_matching_loss_backward", feature_matching_backward_kernel<T>,
                    {unsigned(gradients.pieces()), kPieceThreads}, stream, gradients,
                    static_cast<const Accumulator<T>*>(params.grad_loss));
  }
  return status;
}

bool good(const FeaturePair& p) {
  if (p.fake == nullptr || p.real == nullptr || p.dims < 0 || p.dims > kFeatureMaxDims) return false;
  for (int d = 0; d < p.dims; ++d) {
    if (p.shape[d] <= 0) return false;
  }
  return true;
}

}  // namespace

std::int64_t feature_matching_loss_scratch_cuda(const std::int64_t* counts, std::int64_t pair_count) {
  std::int64_t pieces = 0;
  for (std::int64_t i = 0; i < pair_count; ++i) pieces += pieces_of(counts[i]);
  return pieces > 1 ? pieces * std::int64_t{sizeof(double)} : 0;
}

Status feature_matching_loss_forward_cuda(const FeatureMatchingForward& params, int device, void* stream) {
  for (std::int64_t i = 0; i < params.pair_count; ++i) {
    if (!good(params.pairs[i])) return Status::kBadArgument;
  }
  return on_device(device, [&] {
    return with_type(params.dtype, [&](auto type) { return forward<typename decltype(type)::type>(params, stream); });
  });
}

Status feature_matching_loss_backward_cuda(const FeatureMatchingBackward& params, int device, void* stream) {
  for (std::int64_t i = 0; i < params.gradient_count; ++i) {
    const FeatureGradient& g = params.gradients[i];
    if (g.signs == nullptr || g.grad == nullptr || g.count <= 0) return Status::kBadArgument;
  }
  return on_device(device, [&] {
    return with_type(params.dtype, [&](auto type) { return backward<typename decltype(type)::type>(params, stream); });
  });
}

}  // namespace torchp2p
