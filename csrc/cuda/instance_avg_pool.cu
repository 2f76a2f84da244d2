// instance_avg_pool on CUDA.
//
// Computes: y[n, c, p] = mean of x[n, c, q] over the pixels q of sample n with the id of p; ids are any integers.
// Memory:   reads ids and x once, writes y once. A run of equal ids (there are some tens a row in a street scene) takes
// 30
//           + 20 C bytes of scratch memory besides; there is room for as many runs as pixels, and only that of the runs
//           there are is touched.
// Parallel: 1. find_runs:   a warp takes a strip of pixels, finds its runs of equal ids and sums each in double;
//           2. clear_table: of as many slots as the runs need;
//           3. join_runs:   a thread a run: the first of its sample and id to come to the table is the run's home,
//           which
//                           collects the number of pixels and the largest exponent of the sums;
//           4. add_runs:    sums are added at home, as integers in units of that exponent (fixed.h);
//           5. take_means;
//           6. write:       a warp a strip again.
// Which run becomes a home, and in what order others come to it, changes nothing: integers add up to the same.
#include <type_traits>

#include "fixed.h"
#include "instance_runs.h"
#include "launch.h"
#include "row.h"
#include "torchp2p/instance_avg_pool.h"
#include "types.h"
#include "vec.h"

namespace torchp2p {
namespace {

constexpr int kThreads = kStrips * kWarp;

// ------------------------------------------------------------------------------------------ 1. runs and their sums

// The values of one channel that a lane has of its strip, 0 where there is no pixel.
template <class T> struct LaneValues {
  Accumulator<T> values[kLanePixels];

  __device__ LaneValues(const T* channel, const PixelPlaces& places, const LanePixels& at, bool rows) {
    if (rows && at.count == kLanePixels) {
      const Row<T, kLanePixels> row = load_row<T, kLanePixels>(channel + at.first);
#pragma unroll
      for (int i = 0; i < kLanePixels; ++i) values[i] = to_accumulator(row.values[i]);
    } else {
#pragma unroll
      for (int i = 0; i < kLanePixels; ++i) {
        values[i] = i < at.count ? to_accumulator(channel[places.of(at.first + i)]) : Accumulator<T>(0);
      }
    }
  }
};

// put(number of the run within the strip, its sum) for the runs that begin in the lane. All lanes must come.
template <class T, class Put>
__device__ void sum_runs(const LaneValues<T>& mine, const LaneRuns& runs, const Put& put) {
  double before = 0;  // of the pixels before the first head: they belong to a run that began in an earlier lane
#pragma unroll
  for (int i = 0; i < kLanePixels; ++i) {
    if ((runs.heads & ((2u << i) - 1)) == 0) before += double(mine.values[i]);
  }
  // And those of the lanes to the right, up to and with the first that has a head.
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const double right = shuffle_down(before, distance);
    if (runs.lane + distance <= runs.stop_lane) before += right;
  }
  const double rest = shuffle_down(before, 1);
  double sum = runs.lane + 1 < kWarp ? rest : 0;
  int run = runs.first + runs.count;
#pragma unroll
  for (int i = kLanePixels - 1; i >= 0; --i) {
    sum += double(mine.values[i]);
    if ((runs.heads >> i & 1) == 0) continue;
    put(--run, sum);
    sum = 0;
  }
}

// Copies values that lie side by side, 16 bytes a lane; both ends are aligned. All lanes must come.
template <class T> __device__ void copy_strip(const T* from, int count, int lane, T* to) {
  constexpr int kValues = kPack<T>;
#pragma unroll 4
  for (int i = lane * kValues; i < count; i += kWarp * kValues) {
    if (i + kValues <= count) {
      store_pack(to + i, load_pack(from + i));
    } else {
      for (int k = i; k < count; ++k) to[k] = from[k];
    }
  }
  __syncwarp();
}

template <class T>
__global__ void __launch_bounds__(kThreads, 3)
    find_runs_kernel(InstanceAvgPoolParams p, StripPlan plan, RunTable table) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const std::int64_t strip = blockIdx.x * std::int64_t{kStrips} + warp;
  const bool there = strip < plan.strips;  // every warp comes to the barriers
  const std::int64_t n = there ? strip / plan.strips_per_sample : 0;
  const LanePixels at(strip, lane, plan, there);

  const PixelPlaces id_places(p.ids_stride, p.w);
  const std::int64_t id_sample = n * p.ids_stride.n;
  std::uint64_t ids[kLanePixels];
  load_ids(p.ids, p.id_bytes, id_sample, id_places, at, plan.id_rows, ids);
  const LaneRuns runs(ids, lane, at);

  TORCHP2P_SHARED(int, found, kStrips);
  TORCHP2P_SHARED(unsigned, base, 1);
  if (lane == kWarp - 1) found[warp] = runs.first + runs.count;
  __syncthreads();
  if (threadIdx.x == 0) {
    int all = 0;
    for (int i = 0; i < kStrips; ++i) all += found[i];
    base[0] = atomicAdd(table.run_count, unsigned(all));
  }
  __syncthreads();
  if (!there) return;
  unsigned first = base[0];
  for (int i = 0; i < warp; ++i) first += unsigned(found[i]);
  table.heads[strip * kWarp + lane] = std::uint8_t(runs.heads);
  if (lane == 0) table.first_runs[strip] = first;
  runs.for_each([&](int run, int i, int pixels) {
    table.ids[first + run] = ids[i];
    table.samples[first + run] = unsigned(n);
    table.pixels[first + run] = unsigned(pixels);
  });

  const PixelPlaces places(p.x_stride, p.w);
  const T* sample = static_cast<const T*>(p.x) + n * p.x_stride.n;
  LanePixels pixels = at;
  if (plan.turned != 0) {  // from here on the strip in shared memory stands for the sample
    TORCHP2P_DYNAMIC_SHARED(T, strips);
    T* const copy = strips + warp * kStripPixels * p.c;
    pixels.first = lane * kLanePixels;
    copy_strip(sample + (at.first - pixels.first) * p.c, at.strip_count * int(p.c), lane, copy);
    sample = copy;
  }
  LaneValues<T> values(sample, places, pixels, plan.x_rows);
  for (std::int64_t c = 0; c < p.c; ++c) {
    // The next channel's values are on their way while this one's are added up.
    const std::int64_t next = c + 1 < p.c ? c + 1 : c;
    const LaneValues<T> coming(sample + next * p.x_stride.c, places, pixels, plan.x_rows);
    sum_runs(values, runs, [&](int run, double sum) {
      const std::int64_t place = (first + std::int64_t(run)) * p.c + c;
      table.sums[place] = sum;
      table.scales[place] = scale_of(sum);
      for (int i = 0; i < kLimbs<T>; ++i) table.totals[place * kLimbs<T> + i] = 0;
    });
    values = coming;
  }
}

// ------------------------------------------------------------------------------------------ 2. - 5. sums of ids

__global__ void __launch_bounds__(kThreads) clear_table_kernel(RunTable table) {
  const unsigned slots = slots_for(*table.run_count);
  for (std::int64_t i = blockIdx.x * kThreads + threadIdx.x; i < slots; i += gridDim.x * kThreads) {
    table.slots[i] = kNoRun;
  }
}

__global__ void __launch_bounds__(kThreads) join_runs_kernel(RunTable table, std::int64_t channels) {
  const unsigned runs = *table.run_count;
  for (std::int64_t i = blockIdx.x * kThreads + threadIdx.x; i < runs; i += gridDim.x * kThreads) {
    const unsigned run = unsigned(i), home = home_of(run, table, slots_for(runs));
    table.homes[run] = home;
    if (home == run) continue;
    atomicAdd(table.pixels + home, table.pixels[run]);
    for (std::int64_t c = 0; c < channels; ++c) {
      join_scales(table.scales + home * channels + c, table.scales[run * channels + c]);
    }
  }
}

template <int kCount>
__global__ void __launch_bounds__(kThreads) add_runs_kernel(RunTable table, std::int64_t channels, int headroom) {
  const std::int64_t sums = *table.run_count * channels;
  for (std::int64_t i = blockIdx.x * kThreads + threadIdx.x; i < sums; i += gridDim.x * kThreads) {
    const std::int64_t run = i / channels, home = table.homes[run] * channels + (i - run * channels);
    add_fixed<kCount>(table.totals + home * kCount, table.sums[i], table.scales[home], headroom);
  }
}

// The means take the place of the sums, which nobody needs any more.
template <class T>
__global__ void __launch_bounds__(kThreads) take_means_kernel(RunTable table, std::int64_t channels, int headroom) {
  const std::int64_t sums = *table.run_count * channels;
  T* const means = reinterpret_cast<T*>(table.sums);
  for (std::int64_t i = blockIdx.x * kThreads + threadIdx.x; i < sums; i += gridDim.x * kThreads) {
    const std::int64_t run = i / channels;
    if (table.homes[run] != run) continue;
    const double total = fixed_total<kLimbs<T>>(table.totals + i * kLimbs<T>, table.scales[i], headroom);
    means[i] = from_accumulator<T>(Accumulator<T>(total / double(table.pixels[run])));
  }
}

// ------------------------------------------------------------------------------------------ 6. write

// B: an unsigned integer as large as an element of y. A strip of a channel (NCHW), or of all of them (NHWC), is an
// array of its own in y.
template <class B>
__global__ void __launch_bounds__(kThreads) write_kernel(InstanceAvgPoolParams p, StripPlan plan, RunTable table) {
  TORCHP2P_SHARED(unsigned, homes_of_block, kStrips* kStripPixels);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const std::int64_t strip = blockIdx.x * std::int64_t{kStrips} + warp;
  if (strip >= plan.strips) return;
  unsigned* const homes = homes_of_block + warp * kStripPixels;
  const LanePixels at(strip, lane, plan, true);
  const unsigned heads = table.heads[strip * kWarp + lane];
  // The run of the pixel before the lane's first; it has none before the first pixel of the strip.
  unsigned run = table.first_runs[strip] + unsigned(heads_before(heads, lane)) - 1;
#pragma unroll
  for (int i = 0; i < kLanePixels; ++i) {
    run += heads >> i & 1;
    if (i < at.count) homes[lane * kLanePixels + i] = table.homes[run];
  }
  __syncwarp();

  const B* const means = reinterpret_cast<const B*>(table.sums);
  const std::int64_t n = strip / plan.strips_per_sample, begin = strip % plan.strips_per_sample * kStripPixels;
  const std::int64_t left = plan.pixels - begin, cell = p.channels_last ? p.c : 1;
  const std::int64_t values = (left < kStripPixels ? left : kStripPixels) * cell;
  constexpr int kValues = 16 / int(sizeof(B));
  for (std::int64_t c = 0; c < p.c; c += cell) {
    const std::int64_t image = p.channels_last ? n * p.c : n * p.c + c;
    B* const y = static_cast<B*>(p.y) + image * plan.pixels + begin * cell;
    for (std::int64_t i = lane * kValues; i < values; i += kWarp * kValues) {
      std::int64_t pixel = cell == 1 ? i : i / cell, channel = i - pixel * cell;
      Row<B, kValues> row;
#pragma unroll
      for (int k = 0; k < kValues; ++k) {
        row.values[k] = i + k < values ? means[homes[pixel] * p.c + c + channel] : B(0);
        if (++channel == cell) {
          channel = 0;
          ++pixel;
        }
      }
      if (plan.y_rows && i + kValues <= values) {
        store_row(y + i, row);
      } else {
#pragma unroll
        for (int k = 0; k < kValues; ++k)
          if (i + k < values) y[i + k] = row.values[k];
      }
    }
  }
}

// ------------------------------------------------------------------------------------------ all of it

template <class T> Status pool(const InstanceAvgPoolParams& p, void* stream) {
  Limits limits;
  if (const Status status = read_limits(limits); status != Status::kOk) return status;
  const StripPlan plan(p, int(sizeof(T)));
  ScratchMemory scratch(p.scratch);
  const RunTable table(scratch, p.n, plan, p.c, kLimbs<T>);
  const unsigned blocks = unsigned((plan.strips + kStrips - 1) / kStrips);
  const unsigned enough = unsigned(limits.multiprocessors) * 4;  // blocks that share out the runs, few or many
  const unsigned shared_out = blocks < enough ? blocks : enough;
  const int headroom = plan.headroom();
  using Bits = std::conditional_t<sizeof(T) == 2, std::uint16_t,
                                  std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>>;
  const cudaError_t cleared = cudaMemsetAsync(table.run_count, 0, sizeof(unsigned), static_cast<cudaStream_t>(stream));
  if (cleared != cudaSuccess) return cuda_failed("clearing the number of runs", cleared);
  Status status = launch("find_runs", find_runs_kernel<T>, {blocks, kThreads, plan.turned}, stream, p, plan, table);
  const auto then = [&](const char* name, auto kernel, unsigned grid, auto... arguments) {
    if (status == Status::kOk) status = launch(name, kernel, {grid, kThreads}, stream, arguments...);
  };
  then("clear_table", clear_table_kernel, shared_out, table);
  then("join_runs", join_runs_kernel, shared_out, table, p.c);
  then("add_runs", add_runs_kernel<kLimbs<T>>, shared_out, table, p.c, headroom);
  then("take_means", take_means_kernel<T>, shared_out, table, p.c, headroom);
  then("write", write_kernel<Bits>, blocks, p, plan, table);
  return status;
}

// Scratch memory is for so many samples; the others take their turn in it.
std::int64_t samples_at_once(const InstanceAvgPoolParams& p) {
  constexpr std::int64_t kPixels = std::int64_t{1} << 19;
  const std::int64_t samples = kPixels / (p.h * p.w);
  return samples < 1 ? 1 : samples < p.n ? samples : p.n;
}

template <class T> Status pool_all(const InstanceAvgPoolParams& p, void* stream) {
  const std::int64_t step = samples_at_once(p), id_step = p.ids_stride.n * p.id_bytes;
  for (std::int64_t n = 0; n < p.n; n += step) {
    InstanceAvgPoolParams some = p;
    some.n = p.n - n < step ? p.n - n : step;
    some.x = static_cast<const T*>(p.x) + n * p.x_stride.n;
    some.ids = static_cast<const char*>(p.ids) + n * id_step;
    some.y = static_cast<T*>(p.y) + n * p.c * p.h * p.w;
    if (const Status status = pool<T>(some, stream); status != Status::kOk) return status;
  }
  return Status::kOk;
}

}  // namespace

std::int64_t instance_avg_pool_scratch_cuda(const InstanceAvgPoolParams& p) {
  const int limbs = p.dtype == DType::kFloat64 ? kLimbs<double> : kLimbs<float>;
  ScratchMemory scratch(nullptr);
  RunTable(scratch, samples_at_once(p), StripPlan(p, 1), p.c, limbs);
  return scratch.bytes();
}

Status instance_avg_pool_cuda(const InstanceAvgPoolParams& p, int device, void* stream) {
  const bool sizes = p.n > 0 && p.c > 0 && p.h > 0 && p.w > 0 && p.h * p.w <= INT32_MAX;
  const bool id_type = p.id_bytes == 1 || p.id_bytes == 2 || p.id_bytes == 4 || p.id_bytes == 8;
  if (!sizes || !id_type) return Status::kBadArgument;
  return on_device(device, [&] {
    return with_type(p.dtype, [&](auto type) { return pool_all<typename decltype(type)::type>(p, stream); });
  });
}

}  // namespace torchp2p
