// Packs of neighbouring positions of a plane, out of tensors with any strides, with or without a border.
//
// A position counts the pixels of a plane row by row. Where kPack positions lie side by side in memory they are loaded
// as one pack if it is aligned there, else one by one; all others (ends of a range, rows that end inside a pack,
// strides, pixels near a border) are looked up one after the other, which is slow and rare.
#pragma once

#include "border.h"
#include "norm_act_plan.h"

namespace torchp2p {

// One channel of one sample.
template <class T> struct Plane {
  const T* base;
  std::int64_t row, column;
  int width;

  __device__ Plane(const T* dense, int width) : base(dense), row(width), column(1), width(width) {}
  __device__ Plane(const void* tensor, const Strides& s, int n, int c, int width)
      : base(static_cast<const T*>(tensor) + n * s.n + c * s.c), row(s.h), column(s.w), width(width) {}

  __device__ T at(int h, int w) const { return base[h * row + w * column]; }
  __device__ T at(int position) const { return at(position / width, position % width); }

  __device__ bool dense() const { return column == 1 && row == width; }

  // Where `count` positions from `first` lie side by side; null if they do not.
  __device__ const T* run(int first, int count) const {
    if (dense()) return base + first;
    if (column != 1) return nullptr;
    const int w = first % width;
    return w + count <= width ? base + first / width * row + w : nullptr;
  }
};

// The positions that a block or warp works on.
struct Range {
  int begin, end;

  __device__ bool has(int position) const { return position >= begin && position < end; }
  __device__ bool has_pack(int first, int pack) const { return first >= begin && first + pack <= end; }
};

// Positions by which the first pack of a range lies before its begin, for packs to be aligned in memory at p.
template <class T> inline __device__ int shift_of(const T* p) {
  return int(reinterpret_cast<std::uintptr_t>(p) % 16 / sizeof(T));
}

template <class T> inline __device__ Pack<T> load_run(const T* p) {
  if (takes_packs(p)) return load_pack(p);
  Pack<T> pack;
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) pack.values[i] = p[i];
  return pack;
}

// pack.values[i] = look(first + i) in the range, else 0. Not unrolled: it must not take the registers of the fast ways.
template <class T, class Look> inline __device__ Pack<T> look_up(int first, const Range& range, const Look& look) {
  Pack<T> pack;
#pragma unroll 1
  for (int i = 0; i < kPack<T>; ++i)
    pack.values[i] = range.has(first + i) ? T(look(first + i)) : from_accumulator<T>(0);
  return pack;
}

template <class T> inline __device__ Pack<T> load_positions(const Plane<T>& plane, int first, const Range& range) {
  const T* const run = range.has_pack(first, kPack<T>) ? plane.run(first, kPack<T>) : nullptr;
  return run ? load_run(run) : look_up<T>(first, range, [&](int position) { return plane.at(position); });
}

constexpr int kInFlight = 4;  // packs that a thread loads before it uses the first

// Packs at first, first + stride, ...; stride is a multiple of kPack. Where all are whole and aligned no load waits.
template <class T>
inline __device__ void load_batch(const Plane<T>& plane, int first, int stride, const Range& range,
                                  Pack<T> (&packs)[kInFlight]) {
  const T* const run = plane.dense() ? plane.base + first : nullptr;
  if (run && range.has_pack(first, (kInFlight - 1) * stride + kPack<T>) && takes_packs(run)) {
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) packs[k] = load_pack(run + k * stride);
    return;
  }
#pragma unroll
  for (int k = 0; k < kInFlight; ++k) packs[k] = load_positions(plane, first + k * stride, range);
}

template <class T, class A> inline __device__ void convert(const Pack<T>& pack, A (&values)[kPack<T>]) {
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) values[i] = to_accumulator(pack.values[i]);
}

// Stores values[i] to p[first + i] in the range; p + first is aligned.
template <class T, class A>
inline __device__ void store_positions(T* p, int first, const Range& range, const A (&values)[kPack<T>]) {
  Pack<T> pack;
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) pack.values[i] = from_accumulator<T>(values[i]);
  if (range.has_pack(first, kPack<T>)) {
    store_pack(p + first, pack);
    return;
  }
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i)
    if (range.has(first + i)) p[first + i] = pack.values[i];
}

// --- through a border -----------------------------------------------------------------------------------

// The image and its border, in ints.
struct Frame {
  int h, w, pad;
  PadMode mode;

  __device__ explicit Frame(const NormActShape& s) : h(int(s.h)), w(int(s.w)), pad(int(s.pad)), mode(s.pad_mode) {}
  __device__ int wide() const { return w + 2 * pad; }
  __device__ bool inside(int row, int first, int count) const {  // of the padded plane: in the image itself
    return row >= pad && row < h + pad && first >= pad && first + count <= w + pad;
  }
  // Whether pixels first..first + count - 1 of a row of the image are each shown in one place only.
  __device__ bool once(int row, int first, int count) const {
    if (pad == 0 || mode == PadMode::kZeros) return true;
    const int near = mode == PadMode::kReplicate ? 0 : pad;  // pixels up to here from an end may be shown again
    return row > near && row < h - 1 - near && first > near && first + count - 1 < w - 1 - near;
  }
};

// What positions of the padded plane show of x. zero: bit i is set where position first + i shows zero instead.
template <class T>
inline __device__ Pack<T> load_shown(const Plane<T>& x, const Frame& f, int first, const Range& range, unsigned& zero) {
  const int row = first / f.wide(), column = first % f.wide();
  zero = 0;
  if (range.has_pack(first, kPack<T>) && x.column == 1 && f.inside(row, column, kPack<T>)) {
    return load_run(x.base + (row - f.pad) * x.row + (column - f.pad));
  }
  return look_up<T>(first, range, [&](int position) {
    const int h = shown_at(position / f.wide(), f.h, f.pad, f.mode);
    const int w = shown_at(position % f.wide(), f.w, f.pad, f.mode);
    if (h >= 0 && w >= 0) return x.at(h, w);
    zero |= 1u << (position - first);
    return from_accumulator<T>(0);
  });
}

// The gradient at positions of x: of all places of grad_y that show them.
template <class T, class A>
inline __device__ void load_folded(const Plane<T>& grad, const Frame& f, int first, const Range& range,
                                   A (&values)[kPack<T>]) {
  const int row = first / f.w, column = first % f.w;
  if (range.has_pack(first, kPack<T>) && grad.column == 1 && column + kPack<T> <= f.w &&
      f.once(row, column, kPack<T>)) {
    convert(load_run(grad.base + (row + f.pad) * grad.row + (column + f.pad)), values);
    return;
  }
  A sums[kPack<T>];
#pragma unroll 1
  for (int i = 0; i < kPack<T>; ++i) {
    sums[i] = 0;
    if (!range.has(first + i)) continue;
    for_each_place((first + i) / f.w, f.h, f.pad, f.mode, [&](int h) {
      for_each_place((first + i) % f.w, f.w, f.pad, f.mode, [&](int w) { sums[i] += to_accumulator(grad.at(h, w)); });
    });
  }
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) values[i] = sums[i];
}

}  // namespace torchp2p
