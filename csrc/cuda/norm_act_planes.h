// norm_act of contiguous tensors: plane by plane, in packs that are aligned in the tensor that is written (or, for
// sums, read).
#pragma once

#include "norm_act_load.h"

namespace torchp2p {

constexpr int kBlocksHeld = 2;  // at least, on a multiprocessor: leaves registers enough for not spilling any

// The threads that work on a range together: a block or a warp.
struct Team {
  int rank, size;

  __device__ static Team block() { return {int(threadIdx.x), int(blockDim.x)}; }
  __device__ static Team warp() { return {int(threadIdx.x) % kWarp, kWarp}; }
};

// --- what a team does with a plane ----------------------------------------------------------------------

// Adds the moments of the plane's positions in the range. With a copy, packs are left there too, as they lie in x.
template <class T>
inline __device__ void add_moments(const Plane<T>& x, const Range& range, const Team& team,
                                   RunningMoments<Accumulator<T>>& running, Accumulator<T>& count, T* copy) {
  using A = Accumulator<T>;
  const int stride = team.size * kPack<T>, begin = range.begin - shift_of(x.base + range.begin);
  for (int first = begin + team.rank * kPack<T>; first < range.end; first += kInFlight * stride) {
    Pack<T> packs[kInFlight];
    load_batch(x, first, stride, range, packs);
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      A values[kPack<T>], fresh = 0;
      bool there[kPack<T>];
      const int at = first + k * stride;
      convert(packs[k], values);
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) {
        there[i] = range.has(at + i);
        fresh += there[i] ? A(1) : A(0);
      }
      running.add(Batch<A>(count, fresh), values, there);
      count += fresh;
      if (copy && at < range.end) store_pack(copy + (at - begin), packs[k]);
    }
  }
}

// Writes the positions of the padded plane in the range.
template <class T>
inline __device__ void write_result(const NormActForward& p, const Plane<T>& x, const Plane<T>& residual,
                                    const Coefficients<Accumulator<T>>& k, T* y, const Range& range, const Team& team) {
  using A = Accumulator<T>;
  const Frame frame(p.shape);
  const int stride = team.size * kPack<T>;
  int first = range.begin - shift_of(y + range.begin) + team.rank * kPack<T>;
  for (; first < range.end; first += kInFlight * stride) {
    Pack<T> packs[kInFlight], added[kInFlight];
    unsigned zero[kInFlight] = {};
    if (frame.pad == 0) {
      load_batch(x, first, stride, range, packs);
      if (p.residual) load_batch(residual, first, stride, range, added);
    } else {
#pragma unroll
      for (int j = 0; j < kInFlight; ++j) {
        packs[j] = load_shown(x, frame, first + j * stride, range, zero[j]);
        if (p.residual) added[j] = load_shown(residual, frame, first + j * stride, range, zero[j]);
      }
    }
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) {
      A values[kPack<T>];
      convert(packs[j], values);
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) {
        A z = k.affine(k.normalised(values[i]));
        if (p.residual) z += to_accumulator(added[j].values[i]);
        values[i] = zero[j] >> i & 1 ? A(0) : activate(p.shape.act, z, A(p.shape.slope));
      }
      store_positions(y, first + j * stride, range, values);
    }
  }
}

// g' and xhat of a plane: what the sums and the gradient are made of.
template <class T> struct PlaneGradient {
  using A = Accumulator<T>;
  const NormActBackward& p;
  Plane<T> grad, x, residual;
  Coefficients<A> k;

  __device__ PlaneGradient(const NormActBackward& p, int n, int c)
      : p(p), grad(p.grad_y, p.grad_y_stride, n, c, int(p.shape.w + 2 * p.shape.pad)),
        x(p.x, p.x_stride, n, c, int(p.shape.w)), residual(p.residual, p.residual_stride, n, c, int(p.shape.w)),
        k(coefficients_of<A>(p, n, c)) {}

  __device__ void load(int first, const Range& range, A (&gz)[kPack<T>], A (&xhat)[kPack<T>]) const {
    const Pack<T> values = load_positions(x, first, range);
    Pack<T> added;
    if (p.residual) added = load_positions(residual, first, range);
    if (p.shape.pad == 0) {
      convert(load_positions(grad, first, range), gz);
    } else {
      load_folded(grad, Frame(p.shape), first, range, gz);
    }
    convert(values, xhat);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      xhat[i] = k.normalised(xhat[i]);
      A z = k.affine(xhat[i]);
      if (p.residual) z += to_accumulator(added.values[i]);
      gz[i] = through_activation(p.shape.act, gz[i], z, A(p.shape.slope));
    }
  }
};

// Sums of g' and g' * xhat over the positions in the range.
template <class T>
inline __device__ GradientSums sum_gradient(const PlaneGradient<T>& gradient, const Range& range, const Team& team) {
  using A = Accumulator<T>;
  A g = 0, gx = 0;
  int first = range.begin - shift_of(gradient.x.base + range.begin) + team.rank * kPack<T>;
  for (; first < range.end; first += team.size * kPack<T>) {
    A gz[kPack<T>], xhat[kPack<T>];
    gradient.load(first, range, gz, xhat);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      const bool there = range.has(first + i);
      g += there ? gz[i] : A(0);
      gx += there ? gz[i] * xhat[i] : A(0);
    }
  }
  return {double(g), double(gx)};
}

// Writes the gradients of x and residual in the range; means is null where the statistics do not move with x.
template <class T>
inline __device__ void write_gradient(const PlaneGradient<T>& gradient, const GradientSums* means, std::int64_t start,
                                      const Range& range, const Team& team) {
  using A = Accumulator<T>;
  const NormActBackward& p = gradient.p;
  T* const grad_x = static_cast<T*>(p.grad_x) + start;
  T* const grad_residual = p.grad_residual ? static_cast<T*>(p.grad_residual) + start : nullptr;
  const A mean_g = means ? A(means->g) : A(0), mean_gx = means ? A(means->gx) : A(0);
  const A factor = gradient.k.weight * gradient.k.rstd;
  int first = range.begin - shift_of(grad_x + range.begin) + team.rank * kPack<T>;
  for (; first < range.end; first += team.size * kPack<T>) {
    A gz[kPack<T>], xhat[kPack<T>];
    gradient.load(first, range, gz, xhat);
    if (grad_residual) store_positions(grad_residual, first, range, gz);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      // Statistics that do not move with x take nothing away; 0 * xhat would, where x is not finite.
      const A moved = means ? gz[i] - mean_g - xhat[i] * mean_gx : gz[i];
      gz[i] = moved * factor;
    }
    store_positions(grad_x, first, range, gz);
  }
}

// --- planes cut into chunks and pieces ------------------------------------------------------------------

// Moments of every chunk of every unit. Reads x once, writes one partial a chunk.
// Grid: a block for each chunk of each unit.
template <class T>
__global__ void __launch_bounds__(kThreads, kBlocksHeld)
    norm_act_plane_moments(NormActForward p, Plan plan, Moments<double>* partials) {
  using A = Accumulator<T>;
  const int unit = blockIdx.x / plan.chunks, index = blockIdx.x % plan.chunks;
  const int group = unit / plan.channels, c = unit % plan.channels;
  const Plan::Chunk chunk = plan.chunk(group, index);
  RunningMoments<A> running;
  A count = 0;
  for (int n = chunk.sample_begin; n < chunk.sample_end; ++n) {
    const Plane<T> x(p.x, p.x_stride, n, c, int(p.shape.w));
    add_moments<T>(x, {chunk.begin, chunk.end}, Team::block(), running, count, nullptr);
  }
  const Moments<double> mine{double(count), running.mean, double(running.m2)};
  const Moments<double> all = block_reduce(mine, MergeMoments{});
  if (threadIdx.x == 0) partials[plan.partial(group, index, c)] = all;
}

// Sums of g' and g' * xhat of every chunk of every unit. Reads grad_y, x and residual once, writes one partial a chunk.
// Grid: as for the moments.
template <class T>
__global__ void __launch_bounds__(kThreads, kBlocksHeld)
    norm_act_plane_sums(NormActBackward p, Plan plan, GradientSums* partials) {
  const int unit = blockIdx.x / plan.chunks, index = blockIdx.x % plan.chunks;
  const int group = unit / plan.channels, c = unit % plan.channels;
  const Plan::Chunk chunk = plan.chunk(group, index);
  GradientSums sums{0, 0};
  for (int n = chunk.sample_begin; n < chunk.sample_end; ++n) {
    sums = sums + sum_gradient(PlaneGradient<T>(p, n, c), {chunk.begin, chunk.end}, Team::block());
  }
  sums = block_reduce(sums, Add{});
  if (threadIdx.x == 0) partials[plan.partial(group, index, c)] = sums;
}

// How planes are given out to warps: in pieces, some positions of one plane.
struct Pieces {
  static constexpr std::int64_t kLongest = 4096;
  int positions;  // of a plane
  int length;     // of a piece; the last one of a plane may be shorter
  int per_plane;
  int count;

  static Pieces of(std::int64_t planes, std::int64_t positions) {
    const std::int64_t length = positions < kLongest ? positions : kLongest;
    const std::int64_t per_plane = (positions + length - 1) / length;
    return {int(positions), int(length), int(per_plane), int(planes * per_plane)};
  }
  __device__ int first() const { return int(blockIdx.x * kThreads + threadIdx.x) / kWarp; }
  __device__ int step() const { return int(gridDim.x) * (kThreads / kWarp); }
  __device__ int plane(int piece) const { return piece / per_plane; }
  __device__ std::int64_t start(int piece) const { return std::int64_t(plane(piece)) * positions; }
  __device__ Range range(int piece) const {
    const int begin = piece % per_plane * length;
    return {begin, min(begin + length, positions)};
  }
};

// The result, its border with it. Reads x and residual once, writes y once.
// Grid: as many blocks as the device holds at once; warps stride over the pieces of the padded planes.
template <class T> __global__ void __launch_bounds__(kThreads, kBlocksHeld)
    norm_act_plane_forward(NormActForward p, Pieces pieces) {
  const int channels = int(p.shape.c), width = int(p.shape.w);
  for (int piece = pieces.first(); piece < pieces.count; piece += pieces.step()) {
    const int plane = pieces.plane(piece);
    const int n = plane / channels, c = plane % channels;
    const Plane<T> x(p.x, p.x_stride, n, c, width), residual(p.residual, p.residual_stride, n, c, width);
    T* const y = static_cast<T*>(p.y) + pieces.start(piece);
    write_result(p, x, residual, coefficients_of<Accumulator<T>>(p, n, c), y, pieces.range(piece), Team::warp());
  }
}

// The gradients of x and residual. Reads grad_y, x and residual once, writes grad_x and grad_residual once.
// Grid: as for the result, over the pieces of the planes of x.
template <class T>
__global__ void __launch_bounds__(kThreads, kBlocksHeld)
    norm_act_plane_backward(NormActBackward p, Pieces pieces, const GradientSums* unit_sums) {
  const int channels = int(p.shape.c);
  const double share = unit_share(p.shape);
  for (int piece = pieces.first(); piece < pieces.count; piece += pieces.step()) {
    const int plane = pieces.plane(piece);
    const int n = plane / channels, c = plane % channels;
    GradientSums means;
    if (unit_sums) means = unit_sums[statistic(p.shape, n, c)] * share;
    write_gradient(PlaneGradient<T>(p, n, c), unit_sums ? &means : nullptr, pieces.start(piece), pieces.range(piece),
                   Team::warp());
  }
}

// --- units that one block keeps -------------------------------------------------------------------------

// Values from the start of one sample's copy to that of the next: room to lie as misaligned as in x.
template <class T> inline __host__ __device__ int copy_step(int pixels) {
  return (pixels + kPack<T> - 1) / kPack<T> * kPack<T> + kPack<T>;
}

// Statistics and result of a unit that fits in shared memory. Reads x and residual once, writes y once, and 2 values.
// Grid: a block for each unit, with shared memory for the copies of its samples.
template <class T> __global__ void __launch_bounds__(kThreads, kBlocksHeld)
    norm_act_unit_forward(NormActForward p, Plan plan) {
  using A = Accumulator<T>;
  TORCHP2P_DYNAMIC_SHARED(T, copies);
  const int group = blockIdx.x / plan.channels, c = blockIdx.x % plan.channels, width = int(p.shape.w);
  const int step = copy_step<T>(plan.pixels), first = group * plan.samples;
  RunningMoments<A> running;
  A count = 0;
  for (int i = 0; i < plan.samples; ++i) {
    const Plane<T> x(p.x, p.x_stride, first + i, c, width);
    add_moments<T>(x, {0, plan.pixels}, Team::block(), running, count, copies + i * step);
  }
  const Moments<double> mine{double(count), running.mean, double(running.m2)};
  const Moments<double> all = block_reduce(mine, MergeMoments{});  // after which the copies are whole
  const A mean = A(all.mean), var = A(all.m2 / all.count);
  if (threadIdx.x == 0) {
    static_cast<A*>(p.mean)[blockIdx.x] = mean;
    static_cast<A*>(p.var)[blockIdx.x] = var;
  }
  Coefficients<A> k = affine_of<A>(p, c);
  k.mean = mean;
  k.rstd = rstd_of(var, p.shape.eps);
  const int positions = (plan.pixels / width + 2 * int(p.shape.pad)) * (width + 2 * int(p.shape.pad));
  for (int i = 0; i < plan.samples; ++i) {
    const int n = first + i;
    const Plane<T> x(p.x, p.x_stride, n, c, width), residual(p.residual, p.residual_stride, n, c, width);
    const Plane<T> copy(copies + i * step + shift_of(x.base), width);
    T* const y = static_cast<T*>(p.y) + (std::int64_t(n) * plan.channels + c) * positions;
    write_result(p, copy, residual, k, y, {0, positions}, Team::block());
  }
}

// Sums and gradients of a unit. Reads grad_y, x and residual twice, the second time from the caches that the first
// filled; writes grad_x and grad_residual once, and 2 values a unit.
// Grid: a block for each unit.
template <class T>
__global__ void __launch_bounds__(kThreads, kBlocksHeld)
    norm_act_unit_backward(NormActBackward p, Plan plan, GradientSums* unit_sums) {
  const int group = blockIdx.x / plan.channels, c = blockIdx.x % plan.channels, first = group * plan.samples;
  GradientSums all{0, 0};
  for (int n = first; n < first + plan.samples; ++n) {
    all = all + sum_gradient(PlaneGradient<T>(p, n, c), {0, plan.pixels}, Team::block());
  }
  all = block_reduce(all, Add{});
  if (threadIdx.x == 0) unit_sums[blockIdx.x] = all;
  const GradientSums means = all * unit_share(p.shape);
  for (int n = first; n < first + plan.samples; ++n) {
    const std::int64_t start = (std::int64_t(n) * plan.channels + c) * plan.pixels;
    write_gradient(PlaneGradient<T>(p, n, c), &means, start, {0, plan.pixels}, Team::block());
  }
}

}  // namespace torchp2p
