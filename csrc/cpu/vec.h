// One SIMD register of float or double, and how elements of every dtype get into and out of it.
// Built on the vector extensions of GCC and Clang, so the same text serves SSE, AVX2, AVX-512 and NEON.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "torchp2p/dtype.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

constexpr int kVectorBytes = TORCHP2P_VECTOR_BYTES;

template <class A> struct VecOf;
template <> struct VecOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef std::int32_t mask __attribute__((vector_size(kVectorBytes)));
};
template <> struct VecOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef std::int64_t mask __attribute__((vector_size(kVectorBytes)));
};
template <class A> using Vec = typename VecOf<A>::type;
template <class A> constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(A));

constexpr int kFloats = kLanes<float>;
typedef std::uint32_t U32 __attribute__((vector_size(kVectorBytes)));
typedef std::uint16_t U16 __attribute__((vector_size(kVectorBytes / 2)));

template <class A> inline Vec<A> broadcast(A value) { return value - Vec<A>{}; }  // a negative zero keeps its sign

// --- whole registers ------------------------------------------------------------------------------------

inline Vec<float> load(const float* p) {
  Vec<float> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline Vec<double> load(const double* p) {
  Vec<double> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// 16 bits a lane in memory, 32 in the register. By intrinsics where there is one instruction for it: GCC makes of
// __builtin_convertvector two halves and joins them.
inline U32 load_wide(const void* p) {
#if defined(__AVX512F__)
  return reinterpret_cast<U32>(_mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(static_cast<const __m256i*>(p))));
#elif defined(__AVX2__)
  return reinterpret_cast<U32>(_mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
#else
  U16 half;
  std::memcpy(&half, p, sizeof half);
  return __builtin_convertvector(half, U32);
#endif
}

inline Vec<float> load(const BFloat16* p) { return reinterpret_cast<Vec<float>>(load_wide(p) << 16); }

inline Vec<float> load(const Float16* p) {
#if defined(__AVX512F__)
  return _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__)
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  // Shift exponent and mantissa into place; multiplying by 2^112 rebiases and makes subnormals normal.
  const U32 wide = load_wide(p);
  const U32 magnitude = wide & 0x7fffu;
  const U32 special = reinterpret_cast<U32>(magnitude >= 0x7c00u) & 0x7f800000u;
  const Vec<float> scaled = reinterpret_cast<Vec<float>>(magnitude << 13) * 0x1p112f;
  return reinterpret_cast<Vec<float>>(reinterpret_cast<U32>(scaled) | special | ((wide & 0x8000u) << 16));
#endif
}

inline void store(float* p, Vec<float> v) { std::memcpy(p, &v, sizeof v); }

inline void store(double* p, Vec<double> v) { std::memcpy(p, &v, sizeof v); }

// Round to nearest, ties to even; a nan stays a nan.
inline void store(BFloat16* p, Vec<float> v) {
  const U32 bits = reinterpret_cast<U32>(v);
  const U32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const U32 quiet = (bits >> 16) | 0x40u;
  const U32 is_nan = reinterpret_cast<U32>((bits & 0x7fffffffu) > 0x7f800000u);
  const U16 half = __builtin_convertvector((rounded & ~is_nan) | (quiet & is_nan), U16);
  std::memcpy(p, &half, sizeof half);
}

inline void store(Float16* p, Vec<float> v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_maskz_cvtps_ph(0xffff, v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
#else
  const U32 bits = reinterpret_cast<U32>(v);
  const U32 sign = (bits >> 16) & 0x8000u;
  const U32 magnitude = bits & 0x7fffffffu;
  // Normal results: rebias, round to even at bit 13. Subnormal results: adding 0.5 aligns the mantissa.
  const U32 normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  const Vec<float> aligned = reinterpret_cast<Vec<float>>(magnitude) + 0.5f;
  const U32 subnormal = reinterpret_cast<U32>(aligned) - 0x3f000000u;
  const U32 is_small = reinterpret_cast<U32>(magnitude < 0x38800000u);
  const U32 is_large = reinterpret_cast<U32>(magnitude >= 0x477ff000u);
  const U32 is_nan = reinterpret_cast<U32>(magnitude > 0x7f800000u);
  U32 half = (subnormal & is_small) | (normal & ~is_small);
  half = (half & ~is_large) | (0x7c00u & is_large) | (0x200u & is_nan);
  const U16 packed = __builtin_convertvector(half | sign, U16);
  std::memcpy(p, &packed, sizeof packed);
#endif
}

// --- past the cache -------------------------------------------------------------------------------------

// Results from this size on are not found in the cache by whoever reads them next.
constexpr std::int64_t kPastCacheBytes = 16 << 20;

// For such results: the line is not read before it is
// written. `p` is aligned to the size of v. Call finish_past_cache() after the last one.
template <class V> inline void store_past_cache(void* p, V v) {
#if defined(__AVX512F__)
  if constexpr (sizeof v == 64) return _mm512_stream_si512(static_cast<__m512i*>(p), reinterpret_cast<__m512i>(v));
#endif
#if defined(__AVX__)
  if constexpr (sizeof v == 32) return _mm256_stream_si256(static_cast<__m256i*>(p), reinterpret_cast<__m256i>(v));
#endif
#if defined(__SSE2__)
  if constexpr (sizeof v == 16) return _mm_stream_si128(static_cast<__m128i*>(p), reinterpret_cast<__m128i>(v));
#endif
  std::memcpy(p, &v, sizeof v);
}

inline void finish_past_cache() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// --- the first n lanes ----------------------------------------------------------------------------------

// Lanes from n on take `fill`, so that a reduction can give them a value that adds nothing.
template <class T>
inline Vec<Accumulator<T>> load_some(const T* p, int n, Vec<Accumulator<T>> fill) {
  using A = Accumulator<T>;
  T buffer[kLanes<A>] = {};
  for (int i = 0; i < n; ++i) buffer[i] = p[i];
  Vec<A> v = load(buffer);
  for (int i = n; i < kLanes<A>; ++i) v[i] = fill[i];
  return v;
}

template <class T>
inline void store_some(T* p, Vec<Accumulator<T>> v, int n) {
  T buffer[kLanes<Accumulator<T>>];
  store(buffer, v);
  for (int i = 0; i < n; ++i) p[i] = buffer[i];
}

template <class A> inline double sum_lanes(Vec<A> v) {
  double lanes[kLanes<A>];
  for (int i = 0; i < kLanes<A>; ++i) lanes[i] = static_cast<double>(v[i]);
  for (int half = kLanes<A> / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
