// Arrays of different sizes cut into pieces of one length, numbered through, so that one launch covers them all; and
// the sum over the pieces. A block takes a piece and leaves one double; the doubles are added in an order that depends
// on their number alone, so a loss has the same bits on every run.
#pragma once

#include "launch.h"
#include "reduce.h"

namespace torchp2p {

constexpr int kPieceThreads = 256;  // of a block that takes a piece

struct Piece {
  int entry;
  std::int64_t begin;
};

// Entries of a launch, passed to the kernel by value: more of them than kMost take more launches.
template <class Entry, int kMost> struct PieceTable {
  int count = 0;
  std::int64_t first[kMost + 1] = {};  // number of the first piece of each entry; after the last, of all pieces
  Entry entries[kMost];

  bool full() const { return count == kMost; }
  std::int64_t pieces() const { return first[count]; }

  void add(const Entry& entry, std::int64_t values, std::int64_t length) {
    entries[count] = entry;
    first[count + 1] = first[count] + (values + length - 1) / length;
    ++count;
  }

  __device__ Piece find(std::int64_t number, std::int64_t length) const {
    int entry = 0;
    for (int step = kMost / 2; step > 0; step /= 2) {  // kMost is a power of two
      if (entry + step < count && first[entry + step] <= number) entry += step;
    }
    return {entry, (number - first[entry]) * length};
  }
};

template <class A>
static __global__ void __launch_bounds__(kPieceThreads)
    add_pieces_kernel(const double* sums, std::int64_t count, A* total) {
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += kPieceThreads) sum += sums[i];
  sum = block_reduce(sum, Add{});
  if (threadIdx.x == 0) *total = A(sum);
}

// The sum of a block's piece goes among those of the other pieces, or is all there is to the loss.
template <class A> struct PieceSums {
  double* sums;  // of each piece
  A* loss;       // null unless there is one piece

  __device__ void put(std::int64_t piece, double sum) const {
    if (loss != nullptr) {
      *loss = A(sum);
    } else {
      sums[piece] = sum;
    }
  }
};

template <class A> Status add_pieces(const PieceSums<A>& sums, std::int64_t count, A* loss, void* stream) {
  if (sums.loss != nullptr) return Status::kOk;
  return launch("add_pieces", add_pieces_kernel<A>, {1, kPieceThreads}, stream, static_cast<const double*>(sums.sums),
                count, loss);
}

}  // namespace torchp2p
