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

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
