// The matrices of F(4 x 4, 3 x 3), F(3 x 3, 4 x 4) and F(3 x 3, 2 x 2).
//
// A convolution of rows is a product of polynomials. It is found from its remainders after division by t, t^2 - 1 and,
// of six pixels, t^2 + 1, and from its highest coefficients ("infinity"): a value at 0, an even and an odd part that
// make the values at 1 and -1, a complex number, the value at i. Six pixels are usually interpolated at 2 and -2
// instead of i and -i, and round several times as much: all points should lie on the unit circle.
#pragma once

#include "vec.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

// Remainders, in this order.
enum Remainder { kAtZero, kEven, kOdd, kAtInfinity, kRealPart, kImaginaryPart };
constexpr int kRealRemainders = 4;

// Of m results and r taps: remainders of rows of pixels, of taps and of results.
template <int kM, int kR> struct Winograd;

template <> struct Winograd<3, 2> {
  static constexpr int kRemainders = 4;
  static constexpr double input[4][4] = {{1, 0, -1, 0}, {0, 0, 0.5, 0}, {0, 0.5, 0, 0}, {0, 1, 0, -1}};
  static constexpr double filter[4][2] = {{1, 0}, {1, 0}, {0, 1}, {0, 1}};
  static constexpr double output[4][3] = {{1, 0, 0}, {1, 0, 1}, {0, 1, 0}, {0, 0, -1}};
};

struct SixPixels {
  static constexpr int kRemainders = 6;
  static constexpr double input[6][6] = {{1, 0, 0, 0, -1, 0}, {0, 0, 0.25, 0, 0.25, 0}, {0, 0.25, 0, 0.25, 0, 0},
                                         {0, -1, 0, 0, 0, 1}, {0, 0, -1, 0, 1, 0},      {0, -1, 0, 1, 0, 0}};
};

template <> struct Winograd<4, 3> : SixPixels {
  static constexpr double filter[6][3] = {{1, 0, 0}, {1, 0, 1}, {0, 1, 0}, {0, 0, 1}, {1, 0, -1}, {0, 1, 0}};
  static constexpr double output[6][4] = {{1, 0, 0, 0}, {1, 0, 1, 0},  {0, 1, 0, 1},
                                          {0, 0, 0, 1}, {1, 0, -1, 0}, {0, 1, 0, -1}};
};

template <> struct Winograd<3, 4> : SixPixels {
  static constexpr double filter[6][4] = {{1, 0, 0, 0}, {1, 0, 1, 0},  {0, 1, 0, 1},
                                          {0, 0, 0, 1}, {1, 0, -1, 0}, {0, 1, 0, -1}};
  static constexpr double output[6][3] = {{1, 0, 0}, {1, 0, 1}, {0, 1, 0}, {0, 0, 1}, {1, 0, -1}, {0, 1, 0}};
};

// A product of two complex numbers takes three of real ones: both are projected on three directions of the plane, which
// these are for filters and results, and, for what they are multiplied into, those of the pixels.
constexpr double kDirections[3][2] = {{0.5, 1}, {0.5, -1}, {1, 0}};
constexpr double kPixelDirections[3][2] = {{-0.25, -0.5}, {-0.25, 0.5}, {0.625, 0}};

// A convolution by tiles of m x m results: of stride 1 with the whole kernel, or of stride 2 in four parts, of the even
// and the odd rows and columns, with at most r x r of its taps each.
template <int kM_, int kR_, int kKernel_> struct Scheme {
  static constexpr int kM = kM_, kR = kR_, kKernel = kKernel_;
  using Matrices = Winograd<kM, kR>;
  static constexpr int kSide = kM + kR - 1, kOverlap = kR - 1;  // of a tile of what is read; what neighbours share
  static constexpr int kStep = kM;                              // from tile to tile
  static constexpr int kRemainders = Matrices::kRemainders;
  static constexpr bool kComplex = kRemainders > kRealRemainders;
  // Of a tile: 4 x 4 real numbers; 2 x 4 complex ones, and the product of the complex numbers of both directions, which
  // is no more than two complex numbers again (spread, in winograd_transforms.h).
  static constexpr int kFrequencies = kComplex ? 16 + 3 * (2 * 4 + 2) : 16;
  static constexpr int kOutputFrequencies = kFrequencies;
  static constexpr int kParts = kKernel == kR ? 1 : 4, kStride = kKernel == kR ? 1 : 2;
  static constexpr bool kDirect = false;
};

// A convolution as it is defined, put as one by tiles: of one result, with the pixels under its taps as frequencies.
template <int kKernel_, int kStep_> struct Direct {
  static constexpr int kM = 1, kR = kKernel_, kKernel = kKernel_;
  static constexpr int kSide = kKernel, kStep = kStep_, kOverlap = kSide - kStep;
  static constexpr int kFrequencies = kKernel * kKernel, kOutputFrequencies = 1;
  static constexpr int kParts = 1, kStride = 1;
  static constexpr bool kDirect = true;
};

// Whether there are taps that give a part of the kernel such a frequency: that of infinity has none but the last tap's.
template <class F> inline bool reaches(int part, int frequency) {
  if constexpr (F::kParts == 1 || F::kKernel == 2 * F::kR) {
    return true;
  } else {
    return !(part / 2 && frequency / F::kRemainders == kAtInfinity) &&
           !(part % 2 && frequency % F::kRemainders == kAtInfinity);
  }
}

// What is transformed: squares of kSize values, kStep apart where they are tiles.
template <class F_> struct InputOf {
  using F = F_;
  static constexpr int kSize = F::kSide, kStep = F::kStep, kFrequencies = F::kFrequencies;
  static constexpr double at(int i, int j) { return F::Matrices::input[i][j]; }
  static constexpr double direction(int i, int j) { return kPixelDirections[i][j]; }
  static constexpr double kOfTwoNumbers = 0.25;  // factor of a product of complex numbers
};
template <class F_> struct FilterOf {
  using F = F_;
  static constexpr int kSize = F::kR, kFrequencies = F::kFrequencies;
  static constexpr double at(int i, int j) { return F::Matrices::filter[i][j]; }
  static constexpr double direction(int i, int j) { return kDirections[i][j]; }
  static constexpr double kOfTwoNumbers = 1;
};
template <class F_> struct OutputOf {
  using F = F_;
  static constexpr int kSize = F::kM, kStep = F::kM, kFrequencies = F::kOutputFrequencies;
  static constexpr double at(int i, int j) { return F::Matrices::output[i][j]; }
  static constexpr double direction(int i, int j) { return kDirections[i][j]; }
  static constexpr double kOfTwoNumbers = 1;
};

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
