// Products with the matrices of Winograd's convolution, from values to frequencies and back, that cost no
// multiplication by 0 or 1.
//
// Everything is unrolled, and a frequency is handed on as soon as it is found: there are more than registers.
#pragma once

#include "each.h"
#include "winograd_layout.h"
#include "winograd_matrices.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

// The two ways round of a matrix.
template <class Of> struct Forwards {
  static constexpr int kTo = Of::F::kRemainders, kFrom = Of::kSize;
  static constexpr double at(int i, int j) { return Of::at(i, j); }
};
template <class Of> struct Backwards {
  static constexpr int kTo = Of::kSize, kFrom = Of::F::kRemainders;
  static constexpr double at(int i, int j) { return Of::at(j, i); }
};

// The column whose term a row's sum begins with: one that costs no operation, if there is one.
template <class Matrix> constexpr int first_term(int row) {
  int first = -1;
  for (int j = 0; j < Matrix::kFrom; ++j) {
    if (Matrix::at(row, j) == 1) return j;
    if (Matrix::at(row, j) != 0 && first < 0) first = j;
  }
  return first;
}

template <class Matrix, int kRow, class A> inline Vec<A> dot(const Vec<A>* values) {
  constexpr int kFirst = first_term<Matrix>(kRow);
  constexpr double kFactor = Matrix::at(kRow, kFirst);
  Vec<A> sum = values[kFirst];
  if constexpr (kFactor != 1) sum *= static_cast<A>(kFactor);
  each<Matrix::kFrom>([&](auto column) {
    constexpr double factor = Matrix::at(kRow, column);
    if constexpr (column == kFirst || factor == 0) {
    } else if constexpr (factor == 1) {
      sum += values[column];
    } else if constexpr (factor == -1) {
      sum -= values[column];
    } else {
      sum += static_cast<A>(factor) * values[column];
    }
  });
  return sum;
}

// to (kRemainders) of a row of values: as values at points, so that 1 and -1 stand where the even and the odd part did.
template <class Of, class A> inline void evaluate(const Vec<A>* from, Vec<A>* to) {
  each<Of::F::kRemainders>([&](auto i) { to[i] = dot<Forwards<Of>, i, A>(from); });
  const Vec<A> even = to[kEven], odd = to[kOdd];
  to[kEven] = even + odd;
  to[kOdd] = even - odd;
}

// The adjoint; `from` is changed.
template <class Of, class A> inline void evaluate_back(Vec<A>* from, Vec<A>* to) {
  const Vec<A> at_one = from[kEven], at_minus_one = from[kOdd];
  from[kEven] = at_one + at_minus_one;
  from[kOdd] = at_one - at_minus_one;
  each<Of::kSize>([&](auto i) { to[i] = dot<Backwards<Of>, i, A>(from); });
}

// sink(i, v) of the three projections of a complex number.
template <class Of, class A, class Sink>
inline void project(Vec<A> real, Vec<A> imaginary, double factor, const Sink& sink) {
  each<3>([&](auto i) {
    Vec<A> sum = static_cast<A>(factor * Of::direction(i, 0)) * real;
    if (Of::direction(i, 1) != 0) sum += static_cast<A>(factor * Of::direction(i, 1)) * imaginary;
    sink(i, sum);
  });
}

// The adjoint, from source(i).
template <class Of, class A, class Source>
inline void project_back(const Source& source, double factor, Vec<A>& real, Vec<A>& imaginary) {
  real = static_cast<A>(factor * Of::direction(0, 0)) * source(0);
  imaginary = static_cast<A>(factor * Of::direction(0, 1)) * source(0);
  each<2>([&](auto i) {
    real += static_cast<A>(factor * Of::direction(i + 1, 0)) * source(i + 1);
    if (Of::direction(i + 1, 1) != 0) imaginary += static_cast<A>(factor * Of::direction(i + 1, 1)) * source(i + 1);
  });
}

// Where the frequencies stand: of rows of real remainders the real ones and the projections; of the two rows of complex
// numbers those of every column; and of the two numbers that complex rows and columns make.
template <class F> constexpr int kPerRow = kRealRemainders + (F::kComplex ? 3 : 0);
constexpr int kOfColumns = kRealRemainders * 7, kFirstNumber = kOfColumns + kRealRemainders * 3,
              kSecondNumber = kFirstNumber + 3;

// Frequencies of a tile, of which `evaluate` has taken the columns: sink(f, v). row(i, to) fetches the kSize values of
// row i. Where both directions are complex, (a + b i) x (c + d j), what counts are the products for j = i and j = -i.
template <class Of, class A, class Row, class Sink>
inline void spread_remainders(const Row& row, const Sink& sink) {
  using F = typename Of::F;
  each<kRealRemainders>([&](auto i) {
    Vec<A> from[Of::kSize], values[F::kRemainders];
    row(i, from);
    evaluate<Of, A>(from, values);
    each<kRealRemainders>([&](auto j) { sink(i * kPerRow<F> + j, values[j]); });
    if constexpr (F::kComplex) {
      project<Of, A>(values[kRealPart], values[kImaginaryPart], 1,
                     [&](int d, Vec<A> v) { sink(i * kPerRow<F> + kRealRemainders + d, v); });
    }
  });
  if constexpr (F::kComplex) {
    Vec<A> from[Of::kSize], real[F::kRemainders], imaginary[F::kRemainders];
    row(kRealPart, from);
    evaluate<Of, A>(from, real);
    row(kImaginaryPart, from);
    evaluate<Of, A>(from, imaginary);
    each<kRealRemainders>([&](auto j) {
      project<Of, A>(real[j], imaginary[j], 1, [&](int d, Vec<A> v) { sink(kOfColumns + 3 * j + d, v); });
    });
    const Vec<A> rr = real[kRealPart], ri = real[kImaginaryPart], ir = imaginary[kRealPart],
                 ii = imaginary[kImaginaryPart];
    project<Of, A>(rr - ii, ri + ir, Of::kOfTwoNumbers, [&](int d, Vec<A> v) { sink(kFirstNumber + d, v); });
    project<Of, A>(rr + ii, ir - ri, Of::kOfTwoNumbers, [&](int d, Vec<A> v) { sink(kSecondNumber + d, v); });
  }
}

// The same of any scheme; of a direct one, the values are the frequencies.
template <class Of, class A, class Row, class Sink>
[[gnu::flatten]] inline void spread(const Row& row, const Sink& sink) {
  using F = typename Of::F;
  if constexpr (F::kDirect) {
    each<Of::kSize>([&](auto i) {
      Vec<A> values[Of::kSize];
      row(i, values);
      each<Of::kSize>([&](auto j) { sink(i * Of::kSize + j, values[j]); });
    });
  } else {
    spread_remainders<Of, A>(row, sink);
  }
}

// Frequencies of two tiles, or two filters, that a product takes one after the other: rows_of(0) and rows_of(1) give
// what `spread` asks for.
template <class Product, class Of, class RowsOf>
[[gnu::flatten]] inline void spread_two(const RowsOf& rows_of, typename Product::Unit* to,
                                        std::int64_t next_frequency) {
  using A = typename Product::Value;
  if constexpr (Product::kPack == 1) {
    for (int second = 0; second < 2; ++second, to += kPanel<A>) {
      spread<Of, A>(rows_of(second), [&](int f, Vec<A> v) { store(to + f * next_frequency, v); });
    }
  } else {
    Vec<A> first[Of::kFrequencies];
    spread<Of, A>(rows_of(0), [&](int f, Vec<A> v) { first[f] = v; });
    spread<Of, A>(rows_of(1), [&](int f, Vec<A> v) { Product::store_pairs(to + f * next_frequency, first[f], v); });
  }
}

// The adjoint of `spread`: from source(f), sink(i, values) with kSize values of every row i, of which the columns are
// still remainders.
template <class Of, class A, class Source, class Sink>
[[gnu::flatten]] inline void gather_rows(const Source& source, const Sink& sink) {
  using F = typename Of::F;
  each<kRealRemainders>([&](auto i) {
    Vec<A> found[F::kRemainders], values[Of::kSize];
    each<kRealRemainders>([&](auto j) { found[j] = source(i * kPerRow<F> + j); });
    if constexpr (F::kComplex) {
      project_back<Of, A>([&](int d) { return source(i * kPerRow<F> + kRealRemainders + d); }, 1, found[kRealPart],
                          found[kImaginaryPart]);
    }
    evaluate_back<Of, A>(found, values);
    sink(i, values);
  });
  if constexpr (F::kComplex) {
    Vec<A> real[F::kRemainders], imaginary[F::kRemainders], values[Of::kSize], first[2], second[2];
    each<kRealRemainders>([&](auto j) {
      project_back<Of, A>([&](int d) { return source(kOfColumns + 3 * j + d); }, 1, real[j], imaginary[j]);
    });
    project_back<Of, A>([&](int d) { return source(kFirstNumber + d); }, Of::kOfTwoNumbers, first[0], first[1]);
    project_back<Of, A>([&](int d) { return source(kSecondNumber + d); }, Of::kOfTwoNumbers, second[0], second[1]);
    real[kRealPart] = first[0] + second[0];
    imaginary[kImaginaryPart] = second[0] - first[0];
    real[kImaginaryPart] = first[1] - second[1];
    imaginary[kRealPart] = first[1] + second[1];
    evaluate_back<Of, A>(real, values);
    sink(static_cast<int>(kRealPart), values);
    evaluate_back<Of, A>(imaginary, values);
    sink(static_cast<int>(kImaginaryPart), values);
  }
}

// The whole adjoint, of frequencies that lie next_frequency apart: sink(i, j, v) of kSize x kSize values.
template <class Of, class A, class Sink>
[[gnu::flatten]] inline void gather_tile(const A* from, std::int64_t next_frequency, const Sink& sink) {
  constexpr int kSize = Of::kSize;
  if constexpr (Of::F::kDirect) {
    each<kSize * kSize>([&](auto f) { sink(f / kSize, f % kSize, load(from + f * next_frequency)); });
  } else {
    constexpr int kRemainders = Of::F::kRemainders;
    Vec<A> rows[kRemainders * kSize];
    gather_rows<Of, A>([&](int f) { return load(from + f * next_frequency); }, [&](int i, const Vec<A>* values) {
      each<kSize>([&](auto j) { rows[i * kSize + j] = values[j]; });
    });
    each<kSize>([&](auto j) {
      Vec<A> column[kRemainders], found[kSize];
      each<kRemainders>([&](auto i) { column[i] = rows[i * kSize + j]; });
      evaluate_back<Of, A>(column, found);
      each<kSize>([&](auto i) { sink(i, j, found[i]); });
    });
  }
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
