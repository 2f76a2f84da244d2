// norm_act on CUDA: which kernels run, on which grids.
//
// A contiguous unit (what shares statistics) that fits in a block's shared memory is read once and written once. Else,
// forward: partial moments of every chunk (reads x), their merge, then the result (reads x again, from the second-level
// cache where it fits; writes y). Backward: partial sums (reads grad_y, x, residual), their merge, then the gradients
// (reads them again, writes grad_x and grad_residual). Sums that nothing needs are left out.
#include "torchp2p/norm_act.h"

#include "launch.h"
#include "norm_act_finish.h"
#include "norm_act_pixels.h"
#include "norm_act_planes.h"

namespace torchp2p {
namespace {

// What the kernels index with an int, and what Python should have refused.
bool valid(const NormActShape& s) {
  const bool sizes = s.n > 0 && s.c > 0 && s.h > 0 && s.w > 0 && s.pad >= 0;
  const bool groups = s.stat_groups > 0 && s.n % s.stat_groups == 0;
  if (!sizes || !groups || s.n >= INT32_MAX || s.c >= INT32_MAX || s.h >= INT32_MAX || s.w >= INT32_MAX) return false;
  const std::int64_t positions = (s.h + 2 * s.pad) * (s.w + 2 * s.pad);
  return s.pad < INT32_MAX / 4 && positions < INT32_MAX / 2 &&
         s.n * s.c < INT32_MAX / (positions / Pieces::kLongest + 1);
}

bool empty(const NormActShape& s) { return s.n == 0 || s.c == 0 || s.h == 0 || s.w == 0; }

unsigned at_most(std::int64_t count, std::int64_t most) { return unsigned(count < most ? count : most); }
unsigned blocks_of(std::int64_t count, std::int64_t size) { return unsigned((count + size - 1) / size); }

// Blocks that stride over pieces, a warp each: as many as the device holds at once.
Grid piece_grid(const Pieces& pieces, const Limits& limits) {
  const std::int64_t held = std::int64_t(limits.multiprocessors) * (limits.threads_per_multiprocessor / kThreads);
  return {at_most(blocks_of(pieces.count, kThreads / kWarp), held), kThreads};
}

// Pixels that a block of the channels_last kernels writes: few enough for all multiprocessors to have some, many enough
// to be worth reading the coefficients for.
template <class T> int pixel_run(const NormActShape& s, const Plan& plan, std::int64_t pixels) {
  constexpr std::int64_t kBlocks = 2048, kLeast = 4, kMost = 32;  // the latter two of each row of threads
  const std::int64_t even = pixels * s.n * plan.channel_blocks(kPack<T>) / (kBlocks * plan.rows);
  return int(even < kLeast ? kLeast : even > kMost ? kMost : even) * plan.rows;
}

// The grid of those kernels: (runs of pixels, samples, blocks of channels).
template <class T> Grid pixel_grid(const NormActShape& s, const Plan& plan, std::int64_t pixels, int run) {
  return {{blocks_of(pixels, run), at_most(s.n, 65535), unsigned(plan.channel_blocks(kPack<T>))}, kPixelThreads};
}

// The grid of the channels_last kernels that sum, with room for one Sum a thread and channel.
template <class T, class Sum> Grid pixel_sum_grid(const Plan& plan) {
  return {{unsigned(plan.groups * plan.chunks), unsigned(plan.channel_blocks(kPack<T>))},
          kPixelThreads,
          sizeof(Sum) * kPixelThreads * kPack<T>};
}

Grid plane_sum_grid(const Plan& plan) { return {unsigned(plan.units() * plan.chunks), kThreads}; }

Grid finish_grid(const Plan& plan, std::int64_t groups) {
  return {{blocks_of(plan.channels, kFinishChannels), at_most(groups, 65535)}, {kFinishChannels, kFinishLanes}};
}

// --- units in one piece ---------------------------------------------------------------------------------

// As many threads as have a pack each, up to a whole block.
unsigned unit_threads(const Plan& plan, int pack) {
  unsigned threads = kWarp;
  while (threads < kThreads && std::int64_t(threads) * pack < std::int64_t(plan.pixels) * plan.samples) threads *= 2;
  return threads;
}

// Whether a block each for the units keeps the device busy: many units, or so small ones that cutting them costs more.
bool in_one_piece(const NormActShape& s, const Plan& plan) {
  constexpr std::int64_t kMany = 128, kSmall = 8192;
  return !s.channels_last && (std::int64_t(plan.pixels) * plan.samples <= kSmall || plan.units() >= kMany);
}

template <class T> std::size_t copy_bytes(const Plan& plan) {
  return std::size_t(plan.samples) * copy_step<T>(plan.pixels) * sizeof(T);
}

// Whether two blocks with such copies fit on a multiprocessor: while one waits for memory the other computes.
bool fits(std::size_t copies, const Limits& limits) {
  constexpr std::size_t kBeside = 2048, kOfEachBlock = 1024;  // static shared memory; what the system takes
  return copies + kBeside <= limits.shared_per_block &&
         2 * (copies + kBeside + kOfEachBlock) <= limits.shared_per_multiprocessor;
}

// Whether the second-level cache keeps what the blocks that run at one time have read: two or three times this each.
template <class T> bool stays_in_cache(const Plan& plan) {
  constexpr std::size_t kMost = 64 * 1024;
  return copy_bytes<T>(plan) <= kMost;
}

// --- units in chunks ------------------------------------------------------------------------------------

template <class T> Status take_statistics(const NormActForward& p, const Plan& plan, void* stream) {
  using A = Accumulator<T>;
  const Scratch scratch(p.scratch, plan);
  const Status status = p.shape.channels_last
                            ? launch("norm_act_pixel_moments", norm_act_pixel_moments<T>,
                                     pixel_sum_grid<T, Moments<double>>(plan), stream, p, plan, scratch.moments)
                            : launch("norm_act_plane_moments", norm_act_plane_moments<T>, plane_sum_grid(plan), stream,
                                     p, plan, scratch.moments);
  if (status != Status::kOk) return status;
  return launch("norm_act_finish_moments", norm_act_finish_moments<A>, finish_grid(plan, plan.groups), stream, plan,
                scratch.moments, static_cast<A*>(p.mean), static_cast<A*>(p.var));
}

template <class T> Status forward(const NormActForward& p, void* stream) {
  const NormActShape& s = p.shape;
  const Plan plan = Plan::of(s);
  Limits limits;
  Status status = read_limits(limits);
  if (status != Status::kOk) return status;
  const bool taken = s.statistics == Statistics::kTaken;
  const std::size_t bytes = copy_bytes<T>(plan);
  if (taken && in_one_piece(s, plan) && fits(bytes, limits)) {
    return launch("norm_act_unit_forward", norm_act_unit_forward<T>,
                  {unsigned(plan.units()), unit_threads(plan, kPack<T>), bytes}, stream, p, plan);
  }
  if (taken) {
    status = take_statistics<T>(p, plan, stream);
    if (status != Status::kOk) return status;
  }
  const std::int64_t pixels = (s.h + 2 * s.pad) * (s.w + 2 * s.pad);
  if (s.channels_last) {
    const int run = pixel_run<T>(s, plan, pixels);
    return launch("norm_act_pixel_forward", norm_act_pixel_forward<T>, pixel_grid<T>(s, plan, pixels, run), stream, p,
                  plan, run);
  }
  const Pieces pieces = Pieces::of(s.n * s.c, pixels);
  return launch("norm_act_plane_forward", norm_act_plane_forward<T>, piece_grid(pieces, limits), stream, p, pieces);
}

template <class T> Status sum_gradients(const NormActBackward& p, const Plan& plan, void* stream) {
  const Scratch scratch(p.scratch, plan);
  const Status status =
      p.shape.channels_last
          ? launch("norm_act_pixel_sums", norm_act_pixel_sums<T>, pixel_sum_grid<T, GradientSums>(plan), stream, p,
                   plan, scratch.sums)
          : launch("norm_act_plane_sums", norm_act_plane_sums<T>, plane_sum_grid(plan), stream, p, plan, scratch.sums);
  if (status != Status::kOk) return status;
  return launch("norm_act_finish_sums", norm_act_finish_sums, finish_grid(plan, plan.groups), stream, plan,
                scratch.sums, scratch.unit_sums);
}

template <class T> Status write_affine(const NormActBackward& p, const Plan& plan, void* stream) {
  using A = Accumulator<T>;
  if (!p.grad_weight && !p.grad_bias) return Status::kOk;
  return launch("norm_act_finish_affine", norm_act_finish_affine<A>, finish_grid(plan, 1), stream, plan,
                Scratch(p.scratch, plan).unit_sums, static_cast<A*>(p.grad_weight), static_cast<A*>(p.grad_bias));
}

template <class T> Status backward(const NormActBackward& p, void* stream) {
  const NormActShape& s = p.shape;
  const Plan plan = Plan::of(s);
  const bool moves = s.statistics == Statistics::kOwn;  // the statistics, with x
  GradientSums* const unit_sums = Scratch(p.scratch, plan).unit_sums;
  Status status = Status::kOk;
  if (moves && in_one_piece(s, plan) && stays_in_cache<T>(plan)) {
    status = launch("norm_act_unit_backward", norm_act_unit_backward<T>,
                    {unsigned(plan.units()), unit_threads(plan, kPack<T>)}, stream, p, plan, unit_sums);
    return status == Status::kOk ? write_affine<T>(p, plan, stream) : status;
  }
  if (moves || p.grad_weight || p.grad_bias) status = sum_gradients<T>(p, plan, stream);
  if (status == Status::kOk) status = write_affine<T>(p, plan, stream);
  Limits limits;
  if (status == Status::kOk) status = read_limits(limits);
  if (status != Status::kOk) return status;
  const GradientSums* const moving = moves ? unit_sums : nullptr;
  if (s.channels_last) {
    const int run = pixel_run<T>(s, plan, plan.pixels);
    return launch("norm_act_pixel_backward", norm_act_pixel_backward<T>, pixel_grid<T>(s, plan, plan.pixels, run),
                  stream, p, plan, run, moving);
  }
  const Pieces pieces = Pieces::of(s.n * s.c, plan.pixels);
  return launch("norm_act_plane_backward", norm_act_plane_backward<T>, piece_grid(pieces, limits), stream, p, pieces,
                moving);
}

}  // namespace

Status norm_act_forward_cuda(const NormActForward& p, int device, void* stream) {
  if (empty(p.shape)) return Status::kOk;
  if (!valid(p.shape)) return Status::kBadArgument;
  return on_device(device, [&] {
    return with_type(p.shape.dtype, [&](auto type) { return forward<typename decltype(type)::type>(p, stream); });
  });
}

Status norm_act_backward_cuda(const NormActBackward& p, int device, void* stream) {
  if (empty(p.shape)) return Status::kOk;
  if (!valid(p.shape)) return Status::kBadArgument;
  return on_device(device, [&] {
    return with_type(p.shape.dtype, [&](auto type) { return backward<typename decltype(type)::type>(p, stream); });
  });
}

std::int64_t norm_act_scratch_cuda(const NormActShape& shape) {
  return empty(shape) || !valid(shape) ? 0 : Scratch::bytes(Plan::of(shape));
}

}  // namespace torchp2p
