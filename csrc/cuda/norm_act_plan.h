// How the sums of norm_act are cut, the same for forward and backward.
//
// A "unit" shares statistics: one channel of a group of samples. It is cut into chunks, by its shape alone; a chunk is
// some whole samples, or a part of one. Every block sums the chunks it is given and leaves one partial sum a channel,
// at partials[group][chunk][channel]; the finishing kernels add those up in their order.
#pragma once

#include "norm_act_math.h"
#include "vec.h"

namespace torchp2p {

constexpr int kThreads = 256;       // in a block of the kernels that take planes
constexpr int kPixelThreads = 128;  // of those that take pixels

struct Plan {
  int channels, groups, samples;  // samples in each group
  int pixels;                     // H * W
  int chunk_samples, chunk_pixels;
  int chunks_per_sample, chunks;  // chunks of a group
  // Of a block of the channels_last kernels: threads along channels (a pack each) and along pixels.
  int lanes, rows;

  static Plan of(const NormActShape& s) {
    Plan plan;
    plan.channels = int(s.c);
    plan.groups = int(s.stat_groups);
    plan.samples = int(s.n / s.stat_groups);
    plan.pixels = int(s.h * s.w);
    const int pack = s.dtype == DType::kFloat64 ? 2 : s.dtype == DType::kFloat32 ? 4 : 8;
    plan.lanes = 1;
    while (plan.lanes < kWarp && plan.lanes * pack < plan.channels) plan.lanes *= 2;
    plan.rows = kPixelThreads / plan.lanes;
    // Enough values for a block to be worth starting, few enough chunks to be finished at once.
    const std::int64_t least = s.channels_last ? 16 * plan.rows : 8192, most_chunks = 256;
    const std::int64_t shared = std::int64_t(plan.pixels) * plan.samples / most_chunks;
    const std::int64_t wanted = shared > least ? shared : least;
    plan.chunk_samples = int(wanted / plan.pixels > 1 ? wanted / plan.pixels : 1);
    if (plan.chunk_samples > plan.samples) plan.chunk_samples = plan.samples;
    const int multiple = 64;  // of pixels: chunks begin where packs do
    plan.chunk_pixels = int((wanted + multiple - 1) / multiple * multiple);
    if (plan.chunk_samples > 1 || plan.chunk_pixels > plan.pixels) plan.chunk_pixels = plan.pixels;
    plan.chunks_per_sample = (plan.pixels + plan.chunk_pixels - 1) / plan.chunk_pixels;
    const int sample_chunks = (plan.samples + plan.chunk_samples - 1) / plan.chunk_samples;
    plan.chunks = plan.chunks_per_sample * sample_chunks;
    return plan;
  }

  std::int64_t partials() const { return std::int64_t(groups) * chunks * channels; }
  std::int64_t units() const { return std::int64_t(groups) * channels; }
  int channel_blocks(int pack) const { return (channels + lanes * pack - 1) / (lanes * pack); }

  struct Chunk {
    int sample_begin, sample_end;  // of all samples
    int begin, end;                // pixels
  };
  __device__ Chunk chunk(int group, int index) const {
    const int first = index / chunks_per_sample * chunk_samples, part = index % chunks_per_sample;
    const int after = min(first + chunk_samples, samples), begin = part * chunk_pixels;
    return {group * samples + first, group * samples + after, begin, min(begin + chunk_pixels, pixels)};
  }
  __device__ std::int64_t partial(int group, int chunk, int channel) const {
    return (std::int64_t(group) * chunks + chunk) * channels + channel;
  }
};

// The scratch memory: partial sums, and for the gradient those of every unit.
struct Scratch {
  Moments<double>* moments;
  GradientSums *sums, *unit_sums;

  Scratch(void* memory, const Plan& plan)
      : moments(static_cast<Moments<double>*>(memory)), sums(static_cast<GradientSums*>(memory)),
        unit_sums(sums + plan.partials()) {}
  static std::int64_t bytes(const Plan& plan) {
    const std::int64_t forward = plan.partials() * std::int64_t(sizeof(Moments<double>));
    const std::int64_t backward = (plan.partials() + plan.units()) * std::int64_t(sizeof(GradientSums));
    return forward > backward ? forward : backward;
  }
};

}  // namespace torchp2p
