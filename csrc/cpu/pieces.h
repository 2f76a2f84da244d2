// Arrays of different sizes cut into pieces of one length, numbered through, so that one loop covers them all.
#pragma once

#include <cstdint>

namespace torchp2p {
namespace TORCHP2P_ISA {

struct Piece {
  std::int64_t array, begin, size;
};

inline std::int64_t pieces_of(std::int64_t count, std::int64_t length) { return (count + length - 1) / length; }

// Piece `number` of arrays of count(0), count(1), ... values.
template <class Count> inline Piece find_piece(std::int64_t number, std::int64_t length, const Count& count) {
  std::int64_t array = 0;
  while (number >= pieces_of(count(array), length)) number -= pieces_of(count(array++), length);
  const std::int64_t begin = number * length, left = count(array) - begin;
  return {array, begin, left < length ? left : length};
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
