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
constexpr std::int64_t kPiece = 32768, kBlock = 1024;
static_assert(kPiece % kBlock == 0 && kBlock % kGroup == 0, "a block is whole groups");

// Where the signs of the group that begins with this value are.
constexpr std::int64_t sign_place(std::int64_t value) { return value / kGroup * kVectorBytes; }

using Walk = StridedWalk<kFeatureMaxDims>;

inline bool is_dense(const Walk& walk) { return walk.dims == 1 && walk.stride[0] == 1; }

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

// The magnitudes of the differences of the group that begins at value `begin` are added to `total`, their signs
// written: or of several groups in step, each `apart` values after the one before.
template <Signs kSigns, int kStreams, class T>
inline void take_groups(const T* fake, const T* real, void* signs, std::int64_t begin, std::int64_t apart,
                        Vec<double>& total) {
  using A = Accumulator<T>;
  Vec<A> sum[kStreams] = {};
  Word<A> word[kStreams] = {};
#pragma GCC unroll 4
  for (int k = 0; k < kRegisters<A>; ++k) {
#pragma GCC unroll 2
    for (int s = 0; s < kStreams; ++s) {
      const Vec<A> f = load(fake + s * apart + k * kLanes<A>), r = load(real + s * apart + k * kLanes<A>);
      sum[s] += magnitude<A>(f - r);
      // 1, 0 or -1 (a nan compares neither way, hence 0 as in torch), of which two bits tell all.
      if constexpr (kSigns != Signs::kNone) {
        word[s] = (word[s] << 2) | (f > r ? Word<A>{} + 1 : Word<A>{}) | (f < r ? Word<A>{} + 3 : Word<A>{});
      }
    }
  }
  for (int s = 0; s < kStreams; ++s) {
    add(total, sum[s]);
    if constexpr (kSigns == Signs::kNone) continue;
    char* const at = static_cast<char*>(signs) + sign_place(begin + s * apart);
    if constexpr (kSigns == Signs::kCached) std::memcpy(at, &word[s], sizeof word[s]);
    if constexpr (kSigns == Signs::kPastCache) store_past_cache(at, word[s]);
  }
}

// Sum of |fake - real| over the values of one piece.
template <Signs kSigns, class T>
double take_piece(const FeaturePair& pair, std::int64_t begin, std::int64_t size) {
  const Walk fake_walk(pair.dims, pair.shape, pair.order, pair.fake_stride);
  const Walk real_walk(pair.dims, pair.shape, pair.order, pair.real_stride);
  const T* const fake = static_cast<const T*>(pair.fake);
  const T* const real = static_cast<const T*>(pair.real);
  Vec<double> total{};
  std::int64_t done = 0;
  // Two halves in step keep more lines on their way from memory: a quarter faster in float32, and no faster where
  // values are short and the arithmetic takes as long.
  if (sizeof(T) >= 4 && size == kPiece && is_dense(fake_walk) && is_dense(real_walk)) {
    for (; done < kPiece / 2; done += kGroup) {
      const std::int64_t i = begin + done;
      take_groups<kSigns, 2>(fake + i, real + i, pair.signs, i, kPiece / 2, total);
    }
    done = kPiece;
  }
  for (; done < size; done += kBlock) {
    T fake_buffer[kBlock], real_buffer[kBlock];
    const std::int64_t count = size - done < kBlock ? size - done : kBlock;
    const T* const f = fake_walk.values(fake, begin + done, count, fake_buffer);
    const T* const r = real_walk.values(real, begin + done, count, real_buffer);
    std::int64_t i = 0;
    for (; i + kGroup <= count; i += kGroup) {
      take_groups<kSigns, 1>(f + i, r + i, pair.signs, begin + done + i, 0, total);
    }
    if (i == count) continue;
    T fake_rest[kGroup] = {}, real_rest[kGroup] = {};  // zeros differ by nothing
    std::memcpy(fake_rest, f + i, static_cast<std::size_t>(count - i) * sizeof(T));
    std::memcpy(real_rest, r + i, static_cast<std::size_t>(count - i) * sizeof(T));
    take_groups<kSigns, 1>(fake_rest, real_rest, pair.signs, begin + done + i, 0, total);
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
  double total = 0;
  const double* next = sums.piece(0);
  for (std::int64_t i = 0; i < params.pair_count; ++i) {
    double sum = 0;
    for (std::int64_t k = pieces_of(count(i), kPiece); k > 0; --k) sum += *next++;
    total += params.pairs[i].weight * (sum / static_cast<double>(count(i)));
  }
  *static_cast<Accumulator<T>*>(params.loss) = static_cast<Accumulator<T>>(total);
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
  const char* const signs = static_cast<const char*>(g.signs) + sign_place(begin);
  T* const grad = static_cast<T*>(g.grad) + begin;
  std::int64_t i = 0;
  for (; i + kGroup <= size; i += kGroup) choices.put_group(signs + sign_place(i), grad + i);
  if (i == size) return;
  T rest[kGroup];
  choices.put_group(signs + sign_place(i), rest);
  std::memcpy(grad + i, rest, static_cast<std::size_t>(size - i) * sizeof(T));
}

template <class T> Status backward(const FeatureMatchingBackward& params) {
  const auto count = [&](std::int64_t i) { return params.gradients[i].count; };
  std::int64_t values = 0, pieces = 0;
  for (std::int64_t i = 0; i < params.gradient_count; ++i) {
    values += count(i);
    pieces += pieces_of(count(i), kPiece);
  }
  const double grad_loss = static_cast<double>(*static_cast<const Accumulator<T>*>(params.grad_loss));
  parallel_for(pieces, thread_count(values), [&](std::int64_t number, int) {
    const Piece at = find_piece(number, kPiece, count);
    put_piece<T>(params.gradients[at.array], grad_loss, at.begin, at.size);
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
