// instance_edges on the CPU.
//
// Memory:   reads ids once (a row is in the cache when its neighbours need it), writes the edges once.
// Parallel: over bands of rows; every pixel stands alone.
#include "torchp2p/instance_edges.h"
#include "bands.h"
#include "buffer.h"
#include "isa.h"
#include "parallel.h"
#include "rows.h"

namespace torchp2p {
namespace TORCHP2P_ISA {
namespace {

// One row; at the border of the image the row itself stands for the one that is missing. The compiler makes
// registers of the loop.
template <class I, class E>
inline void mark(const I* above, const I* row, const I* below, std::int64_t width, E one, E* edges) {
  const auto edge = [&](std::int64_t left, std::int64_t i, std::int64_t right) {
    const I id = row[i];
    const bool differs = (id != row[left]) | (id != row[right]) | (id != above[i]) | (id != below[i]);
    return differs ? one : E(0);
  };
  const std::int64_t last = width - 1;
  edges[0] = edge(0, 0, last > 0 ? 1 : 0);
  for (std::int64_t i = 1; i < last; ++i) edges[i] = edge(i - 1, i, i + 1);
  if (last > 0) edges[last] = edge(last - 1, last, last);
}

template <class I, class E> Status find(const InstanceEdgesParams& p) {
  const int threads = thread_count(p.n * p.h * p.w);
  const Bands bands(p.n, p.h, p.w);
  const Rows<I> rows(p.ids, p.ids_stride, p.h, p.w, 1);
  const Buffer<I> packed(3 * threads, rows.buffer_size());
  if (!packed.ok()) return Status::kOutOfMemory;
  parallel_for(bands.count, threads, [&](std::int64_t i, int thread) {
    const Band band = bands[i];
    // Three rows are looked at together; one that must be packed is packed once.
    const auto row_at = [&](std::int64_t h) { return rows.row(band.n, 0, h, packed.piece(3 * thread + h % 3)); };
    const I* row = row_at(band.begin);
    const I* above = band.begin > 0 ? row_at(band.begin - 1) : row;
    for (std::int64_t h = band.begin; h < band.end; ++h) {
      const I* below = h + 1 < p.h ? row_at(h + 1) : row;
      mark(above, row, below, p.w, static_cast<E>(p.one), static_cast<E*>(p.edges) + (band.n * p.h + h) * p.w);
      above = row;
      row = below;
    }
  });
  return Status::kOk;
}

template <class I> Status with_edges(const InstanceEdgesParams& p) {
  switch (p.edge_bytes) {
    case 1: return find<I, std::uint8_t>(p);
    case 2: return find<I, std::uint16_t>(p);
    case 4: return find<I, std::uint32_t>(p);
    case 8: return find<I, std::uint64_t>(p);
    default: return Status::kBadArgument;
  }
}

}  // namespace

Status instance_edges(const InstanceEdgesParams& p) {
  if (p.n <= 0 || p.h <= 0 || p.w <= 0) return Status::kBadArgument;
  switch (p.id_bytes) {
    case 1: return with_edges<std::uint8_t>(p);
    case 2: return with_edges<std::uint16_t>(p);
    case 4: return with_edges<std::uint32_t>(p);
    case 8: return with_edges<std::uint64_t>(p);
    default: return Status::kBadArgument;
  }
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p

TORCHP2P_CPU_ENTRY(instance_edges, InstanceEdgesParams)
