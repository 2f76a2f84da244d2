// norm_act of channels_last tensors: a thread takes kPack neighbouring channels, and keeps their coefficients while it
// goes from pixel to pixel. Channels that stick out, or are not aligned, are taken one by one.
#pragma once

#include "norm_act_load.h"

namespace torchp2p {

// The channels of a thread.
template <class T> struct Channels {
  int first, count;

  __device__ bool whole() const { return count == kPack<T>; }
};

constexpr int kPixelBlocksHeld = 3;  // at least, on a multiprocessor: a thread needs registers for many coefficients
constexpr int kPixelsInFlight = 2;   // that a thread loads before it uses the first

// One sample of a tensor with any strides, from a thread's first channel on.
template <class T> struct Sample {
  const T* base;
  std::int64_t row, column, channel;
  bool packs;  // whether every pixel's channels can be loaded as one pack

  __device__ Sample(const void* tensor, const Strides& s, int n, const Channels<T>& mine)
      : base(static_cast<const T*>(tensor) + n * s.n + mine.first * s.c), row(s.h), column(s.w), channel(s.c),
        packs(mine.whole() && s.c == 1 && s.h % kPack<T> == 0 && s.w % kPack<T> == 0 && takes_packs(base)) {}

  __device__ Pack<T> load(int h, int w, int count) const {
    const T* const p = base + h * row + w * column;
    if (packs) return load_pack(p);
    Pack<T> pack;
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) pack.values[i] = i < count ? p[i * channel] : from_accumulator<T>(0);
    return pack;
  }

  // The gradient of pixel (h, w): of all places of the padded image that show it.
  template <class A> __device__ void load_folded(const Frame& f, int h, int w, int count, A (&values)[kPack<T>]) const {
    if (f.once(h, w, 1)) {
      convert(load(h + f.pad, w + f.pad, count), values);
      return;
    }
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) values[i] = 0;
    for_each_place(h, f.h, f.pad, f.mode, [&](int y) {
      for_each_place(w, f.w, f.pad, f.mode, [&](int x) {
        const Pack<T> more = load(y, x, count);
#pragma unroll
        for (int i = 0; i < kPack<T>; ++i) values[i] += to_accumulator(more.values[i]);
      });
    });
  }
};

template <class T, class A>
inline __device__ void store_channels(T* p, int count, bool packs, const A (&values)[kPack<T>]) {
  Pack<T> pack;
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) pack.values[i] = from_accumulator<T>(values[i]);
  if (packs) {
    store_pack(p, pack);
  } else {
    store_tail(p, pack, count);
  }
}

// A block's threads are plan.lanes along channels and plan.rows along pixels.
template <class T> struct Place {
  Channels<T> mine;
  int row;

  __device__ Place(const Plan& plan, int channel_block) : row(threadIdx.x / plan.lanes) {
    mine.first = (channel_block * plan.lanes + int(threadIdx.x) % plan.lanes) * kPack<T>;
    mine.count = max(0, min(kPack<T>, plan.channels - mine.first));
  }
};

template <class T> struct ChannelCoefficients {
  using A = Accumulator<T>;
  Coefficients<A> of[kPack<T>];

  template <class Params> __device__ ChannelCoefficients(const Params& p, int n, const Channels<T>& mine) {
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i)
      of[i] = i < mine.count ? coefficients_of<A>(p, n, mine.first + i) : Coefficients<A>{0, 1, 1, 0};
  }
};

// --- sums -----------------------------------------------------------------------------------------------

// Merges the rows of a block, channel by channel, in their order. parts has room for a row of channels of every thread.
template <class T, class Sum, class Merge>
inline __device__ void merge_rows(const Plan& plan, const Place<T>& place, Sum (&mine)[kPack<T>], Sum* parts,
                                  const Merge& merge) {
  for (int half = plan.rows / 2; half > 0; half /= 2) {
    __syncthreads();
    if (place.row >= half && place.row < 2 * half) {
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) parts[i * kPixelThreads + threadIdx.x] = mine[i];
    }
    __syncthreads();
    if (place.row < half) {
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i)
        mine[i] = merge(mine[i], parts[i * kPixelThreads + threadIdx.x + half * plan.lanes]);
    }
  }
}

// Moments of every chunk of every channel of every group. Reads x once, writes one partial a chunk and channel.
// Grid: (chunks of each group, blocks of channels); rows of the block stride over the pixels of the chunk, kInRow at a
// time.
template <class T>
__global__ void __launch_bounds__(kPixelThreads, kPixelBlocksHeld)
    norm_act_pixel_moments(NormActForward p, Plan plan, Moments<double>* partials) {
  using A = Accumulator<T>;
  constexpr int kInRow = 6;  // pixels that a thread loads before it uses the first
  TORCHP2P_DYNAMIC_SHARED(Moments<double>, parts);
  const Place<T> place(plan, int(blockIdx.y));
  const int group = int(blockIdx.x) / plan.chunks, index = int(blockIdx.x) % plan.chunks;
  const int width = int(p.shape.w), count = place.mine.count;
  const Plan::Chunk chunk = plan.chunk(group, index);
  RunningMoments<A> running[kPack<T>];
  A seen = 0;
  for (int n = chunk.sample_begin; n < chunk.sample_end && count > 0; ++n) {
    const Sample<T> x(p.x, p.x_stride, n, place.mine);
    for (int pixel = chunk.begin + place.row; pixel < chunk.end; pixel += kInRow * plan.rows) {
      Pack<T> packs[kInRow];
      bool there[kInRow];
      A fresh = 0;
#pragma unroll
      for (int k = 0; k < kInRow; ++k) {
        const int at = pixel + k * plan.rows;
        there[k] = at < chunk.end;
        if (!there[k]) continue;
        packs[k] = x.load(at / width, at % width, count);
        fresh += 1;
      }
      const Batch<A> batch(seen, fresh);
      seen += fresh;
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) {
        A column[kInRow];
#pragma unroll
        for (int k = 0; k < kInRow; ++k) column[k] = there[k] ? to_accumulator(packs[k].values[i]) : A(0);
        running[i].add(batch, column, there);
      }
    }
  }
  Moments<double> mine[kPack<T>];
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) mine[i] = {double(seen), running[i].mean, double(running[i].m2)};
  merge_rows(plan, place, mine, parts, MergeMoments{});
  if (place.row > 0) return;
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i)
    if (i < count) partials[plan.partial(group, index, place.mine.first + i)] = mine[i];
}

// g' and xhat of a thread's channels at a pixel.
template <class T> struct PixelGradient {
  using A = Accumulator<T>;
  Sample<T> grad, x, residual;
  ChannelCoefficients<T> k;

  __device__ PixelGradient(const NormActBackward& p, int n, const Channels<T>& mine)
      : grad(p.grad_y, p.grad_y_stride, n, mine), x(p.x, p.x_stride, n, mine),
        residual(p.residual, p.residual_stride, n, mine), k(p, n, mine) {}

  __device__ void load(const NormActBackward& p, int pixel, int count, A (&gz)[kPack<T>], A (&xhat)[kPack<T>]) const {
    const Frame frame(p.shape);
    const int h = pixel / frame.w, w = pixel % frame.w;
    const Pack<T> values = x.load(h, w, count);
    Pack<T> added;
    if (p.residual) added = residual.load(h, w, count);
    grad.load_folded(frame, h, w, count, gz);
    convert(values, xhat);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      xhat[i] = k.of[i].normalised(xhat[i]);
      A z = k.of[i].affine(xhat[i]);
      if (p.residual) z += to_accumulator(added.values[i]);
      gz[i] = through_activation(p.shape.act, gz[i], z, A(p.shape.slope));
    }
  }
};

// Sums of g' and g' * xhat of every chunk of every channel of every group. Reads grad_y, x and residual once, writes
// one partial a chunk and channel. Grid: as for the moments.
template <class T>
__global__ void __launch_bounds__(kPixelThreads, kPixelBlocksHeld)
    norm_act_pixel_sums(NormActBackward p, Plan plan, GradientSums* partials) {
  using A = Accumulator<T>;
  TORCHP2P_DYNAMIC_SHARED(GradientSums, parts);
  const Place<T> place(plan, int(blockIdx.y));
  const int group = int(blockIdx.x) / plan.chunks, index = int(blockIdx.x) % plan.chunks;
  const int count = place.mine.count;
  const Plan::Chunk chunk = plan.chunk(group, index);
  GradientSums mine[kPack<T>] = {};
  for (int n = chunk.sample_begin; n < chunk.sample_end && count > 0; ++n) {
    const PixelGradient<T> gradient(p, n, place.mine);
    A g[kPack<T>] = {}, gx[kPack<T>] = {};
    for (int pixel = chunk.begin + place.row; pixel < chunk.end; pixel += plan.rows) {
      A gz[kPack<T>], xhat[kPack<T>];
      gradient.load(p, pixel, count, gz, xhat);
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) {
        g[i] += gz[i];
        gx[i] += gz[i] * xhat[i];
      }
    }
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) mine[i] = mine[i] + GradientSums{double(g[i]), double(gx[i])};
  }
  merge_rows(plan, place, mine, parts, Add{});
  if (place.row > 0) return;
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i)
    if (i < count) partials[plan.partial(group, index, place.mine.first + i)] = mine[i];
}

// --- results --------------------------------------------------------------------------------------------

// The result, its border with it. Reads x and residual once (but for the border), writes y once.
// Grid: (runs of `run` pixels of the padded image, samples, blocks of channels).
template <class T> __global__ void __launch_bounds__(kPixelThreads, kPixelBlocksHeld)
    norm_act_pixel_forward(NormActForward p, Plan plan, int run) {
  using A = Accumulator<T>;
  const NormActShape& s = p.shape;
  const Place<T> place(plan, int(blockIdx.z));
  const Frame frame(s);
  const int wide = frame.wide(), high = frame.h + 2 * frame.pad, count = place.mine.count;
  if (count == 0) return;
  const int begin = int(blockIdx.x) * run, end = min(begin + run, high * wide);
  for (int n = int(blockIdx.y); n < int(s.n); n += int(gridDim.y)) {
    const Sample<T> x(p.x, p.x_stride, n, place.mine), residual(p.residual, p.residual_stride, n, place.mine);
    const ChannelCoefficients<T> k(p, n, place.mine);
    T* const y = static_cast<T*>(p.y) + std::int64_t(n) * high * wide * s.c + place.mine.first;
    const bool packs = place.mine.whole() && s.c % kPack<T> == 0 && takes_packs(y);
    for (int pixel = begin + place.row; pixel < end; pixel += kPixelsInFlight * plan.rows) {
      Pack<T> shown[kPixelsInFlight], added[kPixelsInFlight];
      bool zero[kPixelsInFlight];
#pragma unroll
      for (int j = 0; j < kPixelsInFlight; ++j) {
        const int at = pixel + j * plan.rows;
        const int row = shown_at(at / wide, frame.h, frame.pad, frame.mode);
        const int column = shown_at(at % wide, frame.w, frame.pad, frame.mode);
        zero[j] = row < 0 || column < 0;
        if (zero[j] || at >= end) continue;
        shown[j] = x.load(row, column, count);
        if (p.residual) added[j] = residual.load(row, column, count);
      }
#pragma unroll
      for (int j = 0; j < kPixelsInFlight; ++j) {
        const int at = pixel + j * plan.rows;
        if (at >= end) break;
        A values[kPack<T>];
#pragma unroll
        for (int i = 0; i < kPack<T>; ++i) {
          A z = k.of[i].affine(k.of[i].normalised(to_accumulator(shown[j].values[i])));
          if (p.residual) z += to_accumulator(added[j].values[i]);
          values[i] = zero[j] ? A(0) : activate(s.act, z, A(s.slope));
        }
        store_channels(y + at * s.c, count, packs, values);
      }
    }
  }
}

// The gradients of x and residual. Reads grad_y, x and residual once, writes grad_x and grad_residual once.
// Grid: (runs of `run` pixels, samples, blocks of channels).
template <class T>
__global__ void __launch_bounds__(kPixelThreads, kPixelBlocksHeld)
    norm_act_pixel_backward(NormActBackward p, Plan plan, int run, const GradientSums* unit_sums) {
  using A = Accumulator<T>;
  const NormActShape& s = p.shape;
  const Place<T> place(plan, int(blockIdx.z));
  const int count = place.mine.count;
  const double share = unit_share(s);
  if (count == 0) return;
  const int begin = int(blockIdx.x) * run, end = min(begin + run, plan.pixels);
  for (int n = int(blockIdx.y); n < int(s.n); n += int(gridDim.y)) {
    const PixelGradient<T> gradient(p, n, place.mine);
    A mean_g[kPack<T>] = {}, mean_gx[kPack<T>] = {};
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      if (unit_sums == nullptr || i >= count) continue;
      const GradientSums means = unit_sums[statistic(s, n, place.mine.first + i)] * share;
      mean_g[i] = A(means.g);
      mean_gx[i] = A(means.gx);
    }
    const std::int64_t start = std::int64_t(n) * plan.pixels * s.c + place.mine.first;
    T *const grad_x = static_cast<T*>(p.grad_x) + start, *const grad_residual =
                                                             static_cast<T*>(p.grad_residual) + start;
    const bool packs = place.mine.whole() && s.c % kPack<T> == 0;
    const bool x_packs = packs && takes_packs(grad_x), residual_packs = packs && takes_packs(grad_residual);
    for (int pixel = begin + place.row; pixel < end; pixel += plan.rows) {
      A gz[kPack<T>], xhat[kPack<T>];
      gradient.load(p, pixel, count, gz, xhat);
      if (p.grad_residual) store_channels(grad_residual + pixel * s.c, count, residual_packs, gz);
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) {
        // Statistics that do not move with x take nothing away; 0 * xhat would, where x is not finite.
        const A moved = unit_sums ? gz[i] - mean_g[i] - xhat[i] * mean_gx[i] : gz[i];
        gz[i] = moved * (gradient.k.of[i].weight * gradient.k.of[i].rstd);
      }
      store_channels(grad_x + pixel * s.c, count, x_packs, gz);
    }
  }
}

}  // namespace torchp2p
