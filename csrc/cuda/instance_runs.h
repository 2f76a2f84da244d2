// Runs of equal ids in strips of pixels, and the table in which runs of the same sample and id meet: what the kernels
// of instance_avg_pool work on.
#pragma once

#include <cstdint>

#include "launch.h"
#include "reduce.h"
#include "row.h"
#include "scratch.h"
#include "torchp2p/instance_avg_pool.h"

namespace torchp2p {

constexpr int kLanePixels = 8;                     // side by side, of one lane
constexpr int kStripPixels = kWarp * kLanePixels;  // of one warp; rows of an image follow each other without a break
constexpr int kStrips = 8;                         // of a block, one a warp
constexpr unsigned kNoRun = 0xffffffffu;

struct StripPlan {
  std::int64_t pixels, strips_per_sample, strips;
  bool x_rows, id_rows, y_rows;  // whether what a lane takes may be loaded or stored as a Row
  std::size_t turned;  // bytes of shared memory in which a block turns over strips of NHWC; 0 where it does not

  StripPlan(const InstanceAvgPoolParams& p, int x_bytes)
      : pixels(p.h * p.w), strips_per_sample((pixels + kStripPixels - 1) / kStripPixels),
        strips(p.n * strips_per_sample), x_rows(rows_at(p.x, p.x_stride, p.w, x_bytes)),
        id_rows(rows_at(p.ids, p.ids_stride, p.w, p.id_bytes)), y_rows(false), turned(0) {
    const std::int64_t plane = pixels * (p.channels_last ? p.c : 1) * x_bytes;
    y_rows = reinterpret_cast<std::uintptr_t>(p.y) % 16 == 0 && plane % 16 == 0;
    const Strides& stride = p.x_stride;
    const bool dense = p.c > 1 && stride.c == 1 && stride.w == p.c && stride.h == p.w * p.c;
    const bool aligned = reinterpret_cast<std::uintptr_t>(p.x) % 16 == 0 && stride.n * x_bytes % 16 == 0;
    const std::size_t bytes = std::size_t(kStrips) * kStripPixels * p.c * x_bytes;
    if (dense && aligned && bytes <= kMostTurned) turned = bytes;
  }

  // The least number of bits that counts the pixels of a sample.
  int headroom() const {
    int bits = 0;
    while (std::int64_t{1} << bits < pixels) ++bits;
    return bits;
  }

 private:
  static constexpr std::size_t kMostTurned = 47 * 1024;  // a kernel has 48 KB, some of them for what it declares

  static bool rows_at(const void* address, const Strides& stride, std::int64_t w, int bytes) {
    const std::int64_t unit = bytes == 1 ? 8 : 16;
    return reinterpret_cast<std::uintptr_t>(address) % unit == 0 && stride.w == 1 && stride.h == w &&
           stride.n * bytes % unit == 0 && stride.c * bytes % unit == 0;
  }
};

// Where a pixel, counted row after row, lies from the start of its sample.
struct PixelPlaces {
  std::int64_t stride_h, stride_w;
  unsigned w;
  bool flat;  // one stride leads through all rows

  __device__ PixelPlaces(const Strides& stride, std::int64_t width)
      : stride_h(stride.h), stride_w(stride.w), w(unsigned(width)), flat(stride.h == width * stride.w) {}
  __device__ std::int64_t of(unsigned pixel) const {
    return flat ? pixel * stride_w : pixel / w * stride_h + pixel % w * stride_w;
  }
};

// The pixels of a lane: none in a strip that is not there.
struct LanePixels {
  unsigned first;
  int count, strip_count;

  __device__ LanePixels(std::int64_t strip, int lane, const StripPlan& plan, bool there) {
    const std::int64_t begin = strip % plan.strips_per_sample * kStripPixels, left = there ? plan.pixels - begin : 0;
    strip_count = left < kStripPixels ? int(left) : kStripPixels;
    const int mine = strip_count - lane * kLanePixels;
    count = mine < 0 ? 0 : mine < kLanePixels ? mine : kLanePixels;
    first = unsigned(begin) + lane * kLanePixels;
  }
};

// What is kept of runs. They are numbered through, in no particular order.
struct RunTable {
  unsigned* run_count;
  std::uint8_t* heads;         // of each lane of each strip: which of its pixels begin a run
  unsigned* first_runs;        // of each strip
  std::uint64_t* ids;          // of each run, as all below
  unsigned *samples, *pixels;  // pixels: at a home, of all that have come home
  unsigned* homes;             // the run of the same sample and id where all of them meet
  unsigned* slots;             // 2 a run
  double* sums;                // of each run and channel, as all below
  int* scales;                 // at a home, of all that have come home
  unsigned long long* totals;  // at a home: limbs

  RunTable(ScratchMemory& scratch, std::int64_t samples_there, const StripPlan& plan, std::int64_t channels,
           int limbs) {
    const std::int64_t runs = samples_there * plan.pixels, strips = samples_there * plan.strips_per_sample;
    run_count = scratch.take<unsigned>(1);
    heads = scratch.take<std::uint8_t>(strips * kWarp);
    first_runs = scratch.take<unsigned>(strips);
    ids = scratch.take<std::uint64_t>(runs);
    samples = scratch.take<unsigned>(runs);
    pixels = scratch.take<unsigned>(runs);
    homes = scratch.take<unsigned>(runs);
    slots = scratch.take<unsigned>(2 * runs);
    sums = scratch.take<double>(runs * channels);
    scales = scratch.take<int>(runs * channels);
    totals = scratch.take<unsigned long long>(runs * channels * limbs);
  }
};

// ------------------------------------------------------------------------------------------ finding runs

template <class I>
inline __device__ void load_ids_of(const I* sample, const PixelPlaces& places, const LanePixels& at, bool rows,
                                   std::uint64_t (&ids)[kLanePixels]) {
  if (rows && at.count == kLanePixels) {
    const Row<I, kLanePixels> row = load_row<I, kLanePixels>(sample + at.first);
#pragma unroll
    for (int i = 0; i < kLanePixels; ++i) ids[i] = row.values[i];
  } else {
#pragma unroll
    for (int i = 0; i < kLanePixels; ++i) ids[i] = i < at.count ? sample[places.of(at.first + i)] : 0;
  }
}

// The ids of a lane's pixels, whatever their type.
inline __device__ void load_ids(const void* ids, int bytes, std::int64_t sample, const PixelPlaces& places,
                                const LanePixels& at, bool rows, std::uint64_t (&out)[kLanePixels]) {
  switch (bytes) {
    case 1: return load_ids_of(static_cast<const std::uint8_t*>(ids) + sample, places, at, rows, out);
    case 2: return load_ids_of(static_cast<const std::uint16_t*>(ids) + sample, places, at, rows, out);
    case 4: return load_ids_of(static_cast<const std::uint32_t*>(ids) + sample, places, at, rows, out);
    default: return load_ids_of(static_cast<const std::uint64_t*>(ids) + sample, places, at, rows, out);
  }
}

// How many runs begin in the lanes before this one. All lanes must come.
inline __device__ int heads_before(unsigned heads, int lane) {
  int sum = __popc(heads);
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int left = __shfl_up_sync(kAllLanes, sum, distance);
    if (lane >= distance) sum += left;
  }
  return sum - __popc(heads);
}

// The runs that begin in a lane. All lanes of a warp must make theirs together.
struct LaneRuns {
  unsigned heads;   // bit i: pixel i begins a run
  int lane, count;  // of heads
  int first;        // number of the first of them within the strip
  int stop_lane;    // the first lane from this one on that has a head; the last one if none has
  int end;          // place in the strip where the last of them ends

  __device__ LaneRuns(const std::uint64_t (&ids)[kLanePixels], int lane_number, const LanePixels& at)
      : heads(0), lane(lane_number) {
    std::uint64_t before = __shfl_up_sync(kAllLanes, static_cast<unsigned long long>(ids[kLanePixels - 1]), 1);
#pragma unroll
    for (int i = 0; i < kLanePixels; ++i) {
      const bool begins = i < at.count && (ids[i] != before || (i == 0 && lane == 0));
      heads |= unsigned(begins) << i;
      before = ids[i];
    }
    count = __popc(heads);
    first = heads_before(heads, lane);
    const unsigned lanes = __ballot_sync(kAllLanes, heads != 0) >> lane, later = lanes >> 1;
    stop_lane = lanes != 0 ? lane + __ffs(int(lanes)) - 1 : kWarp - 1;
    const int place = lane * kLanePixels + __ffs(int(heads)) - 1,
              next_lane = later != 0 ? lane + __ffs(int(later)) : lane;
    const int next = __shfl_sync(kAllLanes, place, next_lane);
    end = later != 0 ? next : at.strip_count;
  }

  // visit(number within the strip, place in the lane, pixels) for each of them, the last one first.
  template <class Visit> __device__ void for_each(const Visit& visit) const {
    int run = first + count, stop = end;
#pragma unroll
    for (int i = kLanePixels - 1; i >= 0; --i) {
      if ((heads >> i & 1) == 0) continue;
      visit(--run, i, stop - (lane * kLanePixels + i));
      stop = lane * kLanePixels + i;
    }
  }
};

// ------------------------------------------------------------------------------------------ where runs meet

inline __device__ unsigned slots_for(unsigned runs) { return 2 * runs; }

// A run of the same sample and id, the same one for all of those: the first that has come to the table.
inline __device__ unsigned home_of(unsigned run, const RunTable& table, unsigned slots) {
  const std::uint64_t id = table.ids[run];
  const unsigned sample = table.samples[run];
  std::uint64_t hash = (id + sample) * 0x9e3779b97f4a7c15u;
  hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93u;
  unsigned slot = unsigned((hash >> 32) * slots >> 32);
  for (;;) {
    // A slot is taken once and for all, so what a plain load sees is right unless it sees a free one.
    unsigned other = table.slots[slot];
    if (other == kNoRun) other = atomicCAS(table.slots + slot, kNoRun, run);
    if (other == kNoRun) return run;
    if (table.ids[other] == id && table.samples[other] == sample) return other;
    if (++slot == slots) slot = 0;
  }
}

}  // namespace torchp2p
