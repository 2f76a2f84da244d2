// A small matrix turned over in blocks of 16-byte registers, which every instruction set has.
#pragma once

#include "vec.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

typedef float Floats4 __attribute__((vector_size(16)));
typedef double Doubles2 __attribute__((vector_size(16)));

inline void transpose_block(const float* from, std::int64_t from_row, float* to, std::int64_t to_row) {
  Floats4 a, b, c, d;
  std::memcpy(&a, from, sizeof a);
  std::memcpy(&b, from + from_row, sizeof b);
  std::memcpy(&c, from + 2 * from_row, sizeof c);
  std::memcpy(&d, from + 3 * from_row, sizeof d);
  const Floats4 ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Floats4 cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  a = __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5);
  b = __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7);
  c = __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5);
  d = __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7);
  std::memcpy(to, &a, sizeof a);
  std::memcpy(to + to_row, &b, sizeof b);
  std::memcpy(to + 2 * to_row, &c, sizeof c);
  std::memcpy(to + 3 * to_row, &d, sizeof d);
}

inline void transpose_block(const double* from, std::int64_t from_row, double* to, std::int64_t to_row) {
  Doubles2 a, b;
  std::memcpy(&a, from, sizeof a);
  std::memcpy(&b, from + from_row, sizeof b);
  const Doubles2 low = __builtin_shufflevector(a, b, 0, 2), high = __builtin_shufflevector(a, b, 1, 3);
  std::memcpy(to, &low, sizeof low);
  std::memcpy(to + to_row, &high, sizeof high);
}

// to[j][i] = from[i][j] for i < rows, j < columns; both are multiples of the block (4 floats, 2 doubles).
template <class A>
inline void transpose(const A* from, std::int64_t from_row, A* to, std::int64_t to_row, std::int64_t rows,
                      std::int64_t columns) {
  constexpr std::int64_t kBlock = 16 / static_cast<std::int64_t>(sizeof(A));
  for (std::int64_t i = 0; i < rows; i += kBlock) {
    for (std::int64_t j = 0; j < columns; j += kBlock) {
      transpose_block(from + i * from_row + j, from_row, to + j * to_row + i, to_row);
    }
  }
}

// to (9, lanes) of a register's worth of rows of nine, which lie one after the other. False where there is no
// instruction for it.
template <class T, class A> inline bool transpose_nines(const T*, A*) { return false; }
#if defined(__AVX512F__)
// Of four groups of four rows, four columns at a time: first to (columns, rows) within a group, then of the groups the
// rows of a column together.
inline void join_groups(const __m512 groups[4], float* to) {
  const __m512 even = _mm512_shuffle_f32x4(groups[0], groups[1], 0x88),
               more_even = _mm512_shuffle_f32x4(groups[2], groups[3], 0x88);
  const __m512 odd = _mm512_shuffle_f32x4(groups[0], groups[1], 0xdd),
               more_odd = _mm512_shuffle_f32x4(groups[2], groups[3], 0xdd);
  _mm512_storeu_ps(to, _mm512_shuffle_f32x4(even, more_even, 0x88));
  _mm512_storeu_ps(to + 16, _mm512_shuffle_f32x4(odd, more_odd, 0x88));
  _mm512_storeu_ps(to + 32, _mm512_shuffle_f32x4(even, more_even, 0xdd));
  _mm512_storeu_ps(to + 48, _mm512_shuffle_f32x4(odd, more_odd, 0xdd));
}

template <class T> inline bool transpose_nines(const T* from, float* to) {
  const __m512i columns = _mm512_setr_epi32(0, 9, 18, 27, 1, 10, 19, 28, 2, 11, 20, 29, 3, 12, 21, 30);
  const __m512i fifth = _mm512_setr_epi32(4, 13, 22, 31, 4, 13, 22, 31, 4, 13, 22, 31, 4, 13, 22, 31);
  __m512 first[4], second[4], last{};
  for (int group = 0; group < 4; ++group, from += 36) {
    first[group] = _mm512_permutex2var_ps(load(from), columns, load(from + 16));
    const Vec<float> low = load(from + 4), high = load(from + 20);
    second[group] = _mm512_permutex2var_ps(low, columns, high);
    last = _mm512_mask_mov_ps(last, 0xf << 4 * group, _mm512_permutex2var_ps(low, fifth, high));
  }
  join_groups(first, to);
  join_groups(second, to + 64);
  _mm512_storeu_ps(to + 128, last);
  return true;
}
#endif

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
