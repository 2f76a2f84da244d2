// How the work of norm_act is cut, the same for forward and backward and for both layouts.
//
// A "flat row" is one image row as it lies in memory: W values (NCHW, one channel) or W*C (NHWC).
// A "unit" is what shares statistics: a group of samples (one for instance norm, all for batch norm), in NCHW
// one channel of it. A unit is cut into chunks of rows, by its shape
// alone, so partial sums and their order, hence every bit of the result, do not depend on the threads.
#pragma once

#include "buffer.h"
#include "parallel.h"
#include "rows.h"
#include "sweep.h"
#include "torchp2p/norm_act.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

struct Plan {
  std::int64_t n, c, h, w, pad;
  bool channels_last;
  std::int64_t cell;             // values per pixel of a flat row: the channels told apart within a unit
  std::int64_t row;              // values per flat row
  std::int64_t groups, samples;  // groups that share statistics, and samples in each
  std::int64_t units;
  std::int64_t chunk_rows, chunks_per_sample;
  int threads;

  explicit Plan(const NormActShape& s)
      : n(s.n), c(s.c), h(s.h), w(s.w), pad(s.pad), channels_last(s.channels_last), groups(s.stat_groups),
        samples(s.n / s.stat_groups) {
    constexpr std::int64_t kChunkValues = 32768;
    cell = channels_last ? c : 1;
    row = w * cell;
    units = channels_last ? groups : groups * c;
    chunk_rows = row < kChunkValues ? kChunkValues / row : 1;
    if (chunk_rows > h) chunk_rows = h;
    chunks_per_sample = (h + chunk_rows - 1) / chunk_rows;
    threads = thread_count(n * c * h * w);
  }

  std::int64_t chunks() const { return samples * chunks_per_sample; }
  // Partial sums that are alive at one time: one per thread, or one per chunk of the unit being worked on.
  std::int64_t partials() const { return units_at_once() ? threads : chunks(); }
  bool units_at_once() const { return threads == 1 || units >= 2 * threads; }

  struct Chunk {
    std::int64_t n, c, row_begin, row_end;
    std::int64_t rows() const { return row_end - row_begin; }
  };

  Chunk chunk(std::int64_t unit, std::int64_t index) const {
    const std::int64_t sample = index / chunks_per_sample, part = index % chunks_per_sample;
    Chunk k;
    k.n = (channels_last ? unit : unit / c) * samples + sample;
    k.c = channels_last ? 0 : unit % c;
    k.row_begin = part * chunk_rows;
    k.row_end = k.row_begin + chunk_rows < h ? k.row_begin + chunk_rows : h;
    return k;
  }
};

// Runs a kernel over its units: several units at a time where there are enough, else the chunks of one.
//
// The kernel offers begin(unit, slot), reduces() (is there anything to sum), reduce(chunk, slot, partial, thread),
// merge(slot, partial, chunk index), finish(unit, slot) and apply(chunk, slot, thread). Slots hold the sums and
// coefficients of a unit, partials the sums of a chunk. Chunks are applied last first: the last ones read are
// still in the cache.
template <class Kernel>
inline void run(Kernel& kernel, const Plan& plan) {
  const std::int64_t chunks = plan.chunks();
  if (plan.units_at_once()) {
    parallel_for(plan.units, plan.threads, [&](std::int64_t unit, int thread) {
      kernel.begin(unit, thread);
      for (std::int64_t i = 0; i < chunks && kernel.reduces(); ++i) {
        kernel.reduce(plan.chunk(unit, i), thread, thread, thread);
        kernel.merge(thread, thread, i);
      }
      kernel.finish(unit, thread);
      for (std::int64_t i = chunks - 1; i >= 0; --i) kernel.apply(plan.chunk(unit, i), thread, thread);
    });
    return;
  }
  for (std::int64_t unit = 0; unit < plan.units; ++unit) {
    kernel.begin(unit, 0);
    if (kernel.reduces()) {
      parallel_for(chunks, plan.threads,
                   [&](std::int64_t i, int thread) { kernel.reduce(plan.chunk(unit, i), 0, i, thread); });
      for (std::int64_t i = 0; i < chunks; ++i) kernel.merge(0, i, i);
    }
    kernel.finish(unit, 0);
    parallel_for(chunks, plan.threads,
                 [&](std::int64_t i, int thread) { kernel.apply(plan.chunk(unit, chunks - 1 - i), 0, thread); });
  }
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
