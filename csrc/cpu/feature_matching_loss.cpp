// feature_matching_loss on the CPU: every pair in one parallel region.
//
// Forward:  reads fake and real once; writes the sign of their difference, two bits a value (when wanted).
// Backward: reads the signs, writes the gradient. Taking the signs again instead would read fake and real a
//           second time (5 passes over a float32 tensor in all, against 3.1) and keep real alive until then.
// Parallel: all pairs are cut into pieces of kPiece values, whatever pair they belong to; a piece leaves one
//           double, and the doubles are added in order, so the loss does not depend on the threads.

#include <cstring>

#include "buffer.h"
#include "isa.h"
#include "parallel.h"
#include "pieces.h"
#include "strided.h"
#include "torchp2p/feature_matching_loss.h"
#include "vmath.h"

namespace torchp2p {
namespace TORCHP2P_ISA {
namespace {

// The lanes of a register as unsigned integers. Each holds the signs of as many values as pairs of bits fit:
// the values at its place in the kRegisters registers of a group, the first one in the highest bits.
template <class A> struct WordOf {
  using type = U32;
};
template <> struct WordOf<double> {
  typedef std::uint64_t type __attribute__((vector_size(kVectorBytes)));
};
template <class A> using Word = typename WordOf<A>::type;
template <class A> using Mask = typename VecOf<A>::mask;

template <class A> constexpr int kRegisters = static_cast<int>(sizeof(A)) * 4;
constexpr std::int64_t kGroup = 4 * kVectorBytes;  // values whose signs fill one register of words
constexpr std::int64_t kPiece = 16384, kBlock = 1024;
static_assert(kPiece % kBlock == 0 && kBlock % kGroup == 0, "a block is whole groups");

using Walk = StridedWalk<kFeatureMaxDims>;

template <class A> inline Vec<A> magnitude(Vec<A> v) {
  return reinterpret_cast<Vec<A>>(reinterpret_cast<Word<A>>(v) & (~Word<A>{} >> 1));
}

// Sums in the accumulator's type stay within a group; from there on they are doubles.
inline void add(Vec<double>& total, Vec<double> v) { total += v; }
inline void add(Vec<double>& total, Vec<float> v) {
  HalfFloats half[2];
  std::memcpy(half, &v, sizeof v);
  total += __builtin_convertvector(half[0], Vec<double>) + __builtin_convertvector(half[1], Vec<double>);
}

// What is to become of the signs. Past the cache is for pairs so large that they push them out anyway: measured,
// it saves a tenth of the forward in float32 and half in bfloat16. It is not for the gradients: where they are
// written for the first time (torch gets large tensors from the kernel, page by page) it costs a tenth.
enum class Signs { kNone, kCached, kPastCache };
constexpr std::int64_t kPastCacheBytes = 16 << 20;  // of fake

// The magnitudes of the differences of one group are added to `total`, their signs written.
template <Signs kSigns, class T>
inline void take_group(const T* fake, const T* real, char* signs, Vec<double>& total) {
  using A = Accumulator<T>;
  Vec<A> sum[2] = {};
  Word<A> word{};
#pragma GCC unroll 32
  for (int k = 0; k < kRegisters<A>; ++k) {
    const Vec<A> f = load(fake + k * kLanes<A>), r = load(real + k * kLanes<A>);
    sum[k % 2] += magnitude<A>(f - r);
    // 1, 0 or -1 (a nan compares neither way, hence 0 as in torch), of which two bits tell all.
    if constexpr (kSigns != Signs::kNone) {
      word = (word << 2) | (f > r ? Word<A>{} + 1 : Word<A>{}) | (f < r ? Word<A>{} + 3 : Word<A>{});
    }
  }
  add(total, sum[0] + sum[1]);
  if constexpr (kSigns == Signs::kCached) std::memcpy(signs, &word, sizeof word);
  if constexpr (kSigns == Signs::kPastCache) store_past_cache(signs, word);
}

// Sum of |fake - real| over the values of one piece.
template <Signs kSigns, class T>
double take_piece(const FeaturePair& pair, std::int64_t begin, std::int64_t size) {
  const Walk fake_walk(pair.dims, pair.shape, pair.order, pair.fake_stride);
  const Walk real_walk(pair.dims, pair.shape, pair.order, pair.real_stride);
  T fake_buffer[kBlock], real_buffer[kBlock];
  Vec<double> total{};
  char* signs = static_cast<char*>(pair.signs) + begin / kGroup * kVectorBytes;
  for (std::int64_t done = 0; done < size; done += kBlock) {
    const std::int64_t count = size - done < kBlock ? size - done : kBlock;
    const T* fake = fake_walk.values(static_cast<const T*>(pair.fake), begin + done, count, fake_buffer);
    const T* real = real_walk.values(static_cast<const T*>(pair.real), begin + done, count, real_buffer);
    std::int64_t i = 0;
    for (; i + kGroup <= count; i += kGroup, signs += kVectorBytes) {
      take_group<kSigns>(fake + i, real + i, signs, total);
    }
    if (i == count) continue;
    T fake_rest[kGroup] = {}, real_rest[kGroup] = {};  // zeros differ by nothing
    std::memcpy(fake_rest, fake + i, static_cast<std::size_t>(count - i) * sizeof(T));
    std::memcpy(real_rest, real + i, static_cast<std::size_t>(count - i) * sizeof(T));
    take_group<kSigns>(fake_rest, real_rest, signs, total);
  }
  if constexpr (kSigns == Signs::kPastCache) finish_past_cache();
  return sum_lanes<double>(total);
}

inline bool is_aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % kVectorBytes == 0; }

std::int64_t values_of(const FeaturePair& pair) {
  std::int64_t product = 1;
  for (int d = 0; d < pair.dims; ++d) product *= pair.shape[d];
  return product;
}

template <class T> Status forward(const FeatureMatchingForward& params) {
  const auto count = [&](std::int64_t i) { return values_of(params.pairs[i]); };
  std::int64_t values = 0, pieces = 0;
  for (std::int64_t i = 0; i < params.pair_count; ++i) {
    values += count(i);
    pieces += pieces_of(count(i), kPiece);
  }
  const bool large = values * static_cast<std::int64_t>(sizeof(T)) >= kPastCacheBytes;
  const Buffer<double> sums(1, pieces);
  if (!sums.ok()) return Status::kOutOfMemory;
  parallel_for(pieces, thread_count(values), [&](std::int64_t number, int) {
    const Piece at = find_piece(number, kPiece, count);
    const FeaturePair& pair = params.pairs[at.array];
    const bool past_cache = large && is_aligned(pair.signs);
    auto* take = past_cache ? take_piece<Signs::kPastCache, T> : take_piece<Signs::kCached, T>;
    if (pair.signs == nullptr) take = take_piece<Signs::kNone, T>;
    sums.piece(0)[number] = take(pair, at.begin, at.size);
  });
  *params.loss = 0;
  const double* next = sums.piece(0);
  for (std::int64_t i = 0; i < params.pair_count; ++i) {
    double sum = 0;
    for (std::int64_t k = pieces_of(count(i), kPiece); k > 0; --k) sum += *next++;
    *params.loss += params.pairs[i].weight * (sum / static_cast<double>(count(i)));
  }
  return Status::kOk;
}

// A gradient has three values only: they are rounded to T once, and the signs choose among their bits.
template <class T> class Choices {
 public:
  using A = Accumulator<T>;

  explicit Choices(A scale) : zero_(bits(scale * 0)), positive_(bits(scale)), negative_(bits(-scale)) {}

  void put_group(const char* signs, T* grad) const {
    Word<A> word;
    std::memcpy(&word, signs, sizeof word);
#pragma GCC unroll 32
    for (int k = 0; k < kRegisters<A>; ++k, word <<= 2) {
      const Mask<A> sign = reinterpret_cast<Mask<A>>(word) >> (8 * static_cast<int>(sizeof(A)) - 2);
      put(grad + k * kLanes<A>, sign == 0 ? zero_ : sign < 0 ? negative_ : positive_);
    }
  }

 private:
  static Word<A> bits(A value) {
    T rounded[kLanes<A>];
    store(rounded, broadcast(value));
    if constexpr (sizeof(T) == 2) {
      return load_wide(rounded);
    } else {
      Word<A> word;
      std::memcpy(&word, rounded, sizeof word);
      return word;
    }
  }

  static void put(T* p, Word<A> word) {
    if constexpr (sizeof(T) == 2) {
      const U16 half = __builtin_convertvector(word, U16);
      std::memcpy(p, &half, sizeof half);
    } else {
      std::memcpy(p, &word, sizeof word);
    }
  }

  Word<A> zero_, positive_, negative_;
};

template <class T>
void put_piece(const FeatureGradient& g, double grad_loss, std::int64_t begin, std::int64_t size) {
  const Choices<T> choices(static_cast<Accumulator<T>>(grad_loss * (g.weight / static_cast<double>(g.count))));
  const char* signs = static_cast<const char*>(g.signs) + begin / kGroup * kVectorBytes;
  T* grad = static_cast<T*>(g.grad) + begin;
  std::int64_t i = 0;
  for (; i + kGroup <= size; i += kGroup, signs += kVectorBytes) choices.put_group(signs, grad + i);
  if (i == size) return;
  T rest[kGroup];
  choices.put_group(signs, rest);
  std::memcpy(grad + i, rest, static_cast<std::size_t>(size - i) * sizeof(T));
}

template <class T> Status backward(const FeatureMatchingBackward& params) {
  const auto count = [&](std::int64_t i) { return params.gradients[i].count; };
  std::int64_t values = 0, pieces = 0;
  for (std::int64_t i = 0; i < params.gradient_count; ++i) {
    values += count(i);
    pieces += pieces_of(count(i), kPiece);
  }
  parallel_for(pieces, thread_count(values), [&](std::int64_t number, int) {
    const Piece at = find_piece(number, kPiece, count);
    put_piece<T>(params.gradients[at.array], *params.grad_loss, at.begin, at.size);
  });
  return Status::kOk;
}

bool good(const FeaturePair& p) {
  if (p.fake == nullptr || p.real == nullptr || p.dims < 0 || p.dims > kFeatureMaxDims) return false;
  for (int d = 0; d < p.dims; ++d) {
    if (p.shape[d] <= 0) return false;
  }
  return true;
}

}  // namespace

Status feature_matching_loss_forward(const FeatureMatchingForward& params) {
  for (std::int64_t i = 0; i < params.pair_count; ++i) {
    if (!good(params.pairs[i])) return Status::kBadArgument;
  }
  switch (params.dtype) {
    case DType::kFloat32: return forward<float>(params);
    case DType::kBFloat16: return forward<BFloat16>(params);
    case DType::kFloat16: return forward<Float16>(params);
    case DType::kFloat64: return forward<double>(params);
  }
  return Status::kBadArgument;
}

Status feature_matching_loss_backward(const FeatureMatchingBackward& params) {
  for (std::int64_t i = 0; i < params.gradient_count; ++i) {
    const FeatureGradient& g = params.gradients[i];
    if (g.signs == nullptr || g.grad == nullptr || g.count <= 0) return Status::kBadArgument;
  }
  switch (params.dtype) {
    case DType::kFloat32: return backward<float>(params);
    case DType::kBFloat16: return backward<BFloat16>(params);
    case DType::kFloat16: return backward<Float16>(params);
    case DType::kFloat64: return backward<double>(params);
  }
  return Status::kBadArgument;
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p

TORCHP2P_CPU_ENTRY(feature_matching_loss_forward, FeatureMatchingForward)
TORCHP2P_CPU_ENTRY(feature_matching_loss_backward, FeatureMatchingBackward)
