// The matrices of F(4 x 4, 3 x 3), F(3 x 3, 4 x 4) and F(3 x 3, 2 x 2), and products with them that cost no
// multiplication by 0 or 1.
//
// Four pixels are interpolated at 0, 1, -1 and infinity. For six, 2 and -2 are usual too, and round several times as
// much. Here i and -i are taken, which lie where the others do, on the unit circle: a product of two complex numbers is
// made of three real ones, the two numbers each projected on three directions of the plane, so that there are seven
// frequencies of six pixels. Rows are balanced between filter and input by powers of two. The frequency of infinity
// is of the last tap alone.
#pragma once

#include <utility>

#include "vec.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

// Rows of values known when compiling: of m results and r taps.
template <int kM, int kR> struct Winograd;

template <> struct Winograd<3, 2> {
  static constexpr int kPoints = 4;
  static constexpr double input[4][4] = {{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}};
  static constexpr double filter[4][2] = {{1, 0}, {0.5, 0.5}, {0.5, -0.5}, {0, 1}};
  static constexpr double output[3][4] = {{1, 1, 1, 0}, {0, 1, -1, 0}, {0, 1, 1, -1}};
};

// Of a + b i the fourth to the sixth row of a filter's matrix take a / 2 + b, a / 2 - b and a.
struct SevenPoints {
  static constexpr int kPoints = 7;
  static constexpr double input[7][6] = {{1, 0, 0, 0, -1, 0},
                                         {0, 0.5, 0.5, 0.5, 0.5, 0},
                                         {0, -0.5, 0.5, -0.5, 0.5, 0},
                                         {0, 0.5, 0.25, -0.5, -0.25, 0},
                                         {0, -0.5, 0.25, 0.5, -0.25, 0},
                                         {0, 0, -0.625, 0, 0.625, 0},
                                         {0, -1, 0, 0, 0, 1}};
};

template <> struct Winograd<4, 3> : SevenPoints {
  static constexpr double filter[7][3] = {{1, 0, 0},       {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0.5, 1, -0.5},
                                          {0.5, -1, -0.5}, {1, 0, -1},      {0, 0, 1}};
  static constexpr double output[4][7] = {
      {1, 1, 1, 0.5, 0.5, 1, 0}, {0, 1, -1, 1, -1, 0, 0}, {0, 1, 1, -0.5, -0.5, -1, 0}, {0, 1, -1, -1, 1, 0, 1}};
};

template <> struct Winograd<3, 4> : SevenPoints {
  static constexpr double filter[7][4] = {{1, 0, 0, 0},       {0.5, 0.5, 0.5, 0.5}, {0.5, -0.5, 0.5, -0.5},
                                          {0.5, 1, -0.5, -1}, {0.5, -1, -0.5, 1},   {1, 0, -1, 0},
                                          {0, 0, 0, 1}};
  static constexpr double output[3][7] = {
      {1, 1, 1, 0.5, 0.5, 1, 0}, {0, 1, -1, 1, -1, 0, 0}, {0, 1, 1, -0.5, -0.5, -1, 1}};
};

// A convolution by tiles of m x m results: of stride 1 with the whole kernel, or of stride 2 in four parts, of the even
// and the odd rows and columns, with at most r x r of its taps each.
template <int kM_, int kR_, int kKernel_> struct Scheme {
  static constexpr int kM = kM_, kR = kR_, kKernel = kKernel_;
  using Matrices = Winograd<kM, kR>;
  static constexpr int kSide = kM + kR - 1, kOverlap = kR - 1;  // of a tile of what is read; what neighbours share
  static constexpr int kPoints = Matrices::kPoints, kCount = kPoints * kPoints;  // frequencies
  static constexpr int kParts = kKernel == kR ? 1 : 4, kStride = kKernel == kR ? 1 : 2;
};

// Whether there are taps that give a part of the kernel such a frequency: that of infinity has none but the last tap's.
template <class F> inline bool reaches(int part, int frequency) {
  if constexpr (F::kParts == 1 || F::kKernel == 2 * F::kR) return true;
  return !(part / 2 && frequency / F::kPoints == F::kPoints - 1) &&
         !(part % 2 && frequency % F::kPoints == F::kPoints - 1);
}

// Which matrix, and which way round.
template <class F> struct InputOf {
  static constexpr int kTo = F::kPoints, kFrom = F::kSide;
  static constexpr double at(int i, int j) { return F::Matrices::input[i][j]; }
};
template <class F> struct FilterOf {
  static constexpr int kTo = F::kPoints, kFrom = F::kR;
  static constexpr double at(int i, int j) { return F::Matrices::filter[i][j]; }
};
template <class F> struct OutputOf {
  static constexpr int kTo = F::kM, kFrom = F::kPoints;
  static constexpr double at(int i, int j) { return F::Matrices::output[i][j]; }
};
template <class Matrix> struct Transposed {
  static constexpr int kTo = Matrix::kFrom, kFrom = Matrix::kTo;
  static constexpr double at(int i, int j) { return Matrix::at(j, i); }
};

// The column whose term a row's sum begins with: one that costs no operation, if there is one.
template <class Matrix, int kRow> constexpr int first_term() {
  int first = -1;
  for (int j = 0; j < Matrix::kFrom; ++j) {
    if (Matrix::at(kRow, j) == 1) return j;
    if (Matrix::at(kRow, j) != 0 && first < 0) first = j;
  }
  return first;
}

template <class Matrix, int kRow, int kColumn, class A> inline void add_term(Vec<A>& sum, Vec<A> value) {
  constexpr double factor = Matrix::at(kRow, kColumn);
  if constexpr (kColumn == first_term<Matrix, kRow>()) {
  } else if constexpr (factor == 1) {
    sum += value;
  } else if constexpr (factor == -1) {
    sum -= value;
  } else if constexpr (factor != 0) {
    sum += static_cast<A>(factor) * value;
  }
}

template <class Matrix, int kRow, class A, int... kColumns>
inline Vec<A> dot(const Vec<A>* values, int step, std::integer_sequence<int, kColumns...>) {
  constexpr int kFirst = first_term<Matrix, kRow>();
  constexpr double factor = Matrix::at(kRow, kFirst);
  Vec<A> sum = values[kFirst * step];
  if constexpr (factor != 1) sum *= static_cast<A>(factor);
  (add_term<Matrix, kRow, kColumns, A>(sum, values[kColumns * step]), ...);
  return sum;
}

template <class Matrix, class A, int... kRows>
inline void multiply(const Vec<A>* from, int from_step, Vec<A>* to, int to_step, std::integer_sequence<int, kRows...>) {
  ((to[kRows * to_step] = dot<Matrix, kRows, A>(from, from_step, std::make_integer_sequence<int, Matrix::kFrom>{})),
   ...);
}

// to = Matrix * from * Matrix^T, squares row by row: from kFrom x kFrom, to kTo x kTo.
template <class Matrix, class A> inline void sandwich(const Vec<A>* from, Vec<A>* to) {
  constexpr int kTo = Matrix::kTo, kFrom = Matrix::kFrom;
  constexpr auto rows = std::make_integer_sequence<int, kTo>{};
  Vec<A> half[kTo * kFrom];
  for (int j = 0; j < kFrom; ++j) multiply<Matrix, A>(from + j, kFrom, half + j, kFrom, rows);
  for (int i = 0; i < kTo; ++i) multiply<Matrix, A>(half + i * kFrom, 1, to + i * kTo, 1, rows);
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
