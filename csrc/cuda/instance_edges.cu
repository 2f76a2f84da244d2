// instance_edges on CUDA.
//
// Computes: edges[n, y, x] = 1 where the id at (y, x) is not that of all of its neighbours in the image.
// Memory:   reads every id once, those above and below a band again (from L2); writes every edge once.
// Parallel: a thread goes down kRows rows of a few pixels side by side, with the rows above and below in registers. The
//           two ids beyond the ends come from L1, where the neighbours have loaded them.
#include "launch.h"
#include "row.h"
#include "torchp2p/instance_edges.h"

namespace torchp2p {
namespace {

constexpr int kThreads = 256;
constexpr int kRows = 8;
// Pixels of a thread: 16 bytes of ids, but no less than 4 pixels and no more than 8.
template <class I> constexpr int kWidth = sizeof(I) < 4 ? 8 : 4;

struct Plan {
  std::int64_t groups, bands, threads;  // of pixels in a row, of rows in an image, in all
  bool wide_ids, wide_edges;            // whether whole rows of a thread may be loaded and stored at once
};

// The ids of a thread in one row; beyond the end of the image the last one is repeated.
template <class I> __device__ Row<I, kWidth<I>> ids_at(const I* row, std::int64_t stride, int count, bool wide) {
  if (wide && count == kWidth<I>) return load_row<I, kWidth<I>>(row);
  Row<I, kWidth<I>> ids;
#pragma unroll
  for (int i = 0; i < kWidth<I>; ++i) ids.values[i] = row[(i < count ? i : count - 1) * stride];
  return ids;
}

template <class E, int kCount>
__device__ void put_edges(void* edges, std::int64_t at, unsigned marks, E one, int count, bool wide) {
  Row<E, kCount> row;
#pragma unroll
  for (int i = 0; i < kCount; ++i) row.values[i] = (marks >> i & 1) != 0 ? one : E(0);
  E* const to = static_cast<E*>(edges) + at;
  if (wide && count == kCount) return store_row(to, row);
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    if (i < count) to[i] = row.values[i];
}

template <class I> __global__ void __launch_bounds__(kThreads, 2)
    instance_edges_kernel(InstanceEdgesParams p, Plan plan) {
  const std::int64_t thread = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  if (thread >= plan.threads) return;
  const std::int64_t x = thread % plan.groups * kWidth<I>, band = thread / plan.groups % plan.bands;
  const std::int64_t n = thread / plan.groups / plan.bands;
  const int count = p.w - x < kWidth<I> ? int(p.w - x) : kWidth<I>;
  const Strides& stride = p.ids_stride;
  const I* const column = static_cast<const I*>(p.ids) + n * stride.n + x * stride.w;
  const auto row_at = [&](std::int64_t y) { return ids_at<I>(column + y * stride.h, stride.w, count, plan.wide_ids); };

  const std::int64_t begin = band * kRows;
  Row<I, kWidth<I>> row = row_at(begin), above = begin > 0 ? row_at(begin - 1) : row;
#pragma unroll 2
  for (std::int64_t y = begin; y < begin + kRows && y < p.h; ++y) {
    const Row<I, kWidth<I>> below = y + 1 < p.h ? row_at(y + 1) : row;
    const I* const ids = column + y * stride.h;
    I left = x > 0 ? ids[-stride.w] : row.values[0];
    const I beyond = x + kWidth<I> < p.w ? ids[kWidth<I> * stride.w] : row.values[kWidth<I> - 1];
    unsigned marks = 0;
#pragma unroll
    for (int i = 0; i < kWidth<I>; ++i) {
      const I id = row.values[i], right = i + 1 < kWidth<I> ? row.values[i + 1] : beyond;
      const bool differs = id != left || id != right || id != above.values[i] || id != below.values[i];
      marks |= unsigned(differs) << i;
      left = id;
    }
    const std::int64_t at = (n * p.h + y) * p.w + x;
    switch (p.edge_bytes) {
      case 1: put_edges<std::uint8_t, kWidth<I>>(p.edges, at, marks, p.one, count, plan.wide_edges); break;
      case 2: put_edges<std::uint16_t, kWidth<I>>(p.edges, at, marks, p.one, count, plan.wide_edges); break;
      case 4: put_edges<std::uint32_t, kWidth<I>>(p.edges, at, marks, p.one, count, plan.wide_edges); break;
      default: put_edges<std::uint64_t, kWidth<I>>(p.edges, at, marks, p.one, count, plan.wide_edges); break;
    }
    above = row;
    row = below;
  }
}

template <class I> Status find_edges(const char* name, const InstanceEdgesParams& p, void* stream) {
  constexpr int kCount = kWidth<I>;
  Plan plan;
  plan.groups = (p.w + kCount - 1) / kCount;
  plan.bands = (p.h + kRows - 1) / kRows;
  plan.threads = plan.groups * plan.bands * p.n;
  // Every row of every thread is as aligned as the first if the strides are whole rows of a thread.
  const Strides& stride = p.ids_stride;
  plan.wide_ids = takes_rows<I, kCount>(static_cast<const I*>(p.ids)) && stride.w == 1 && stride.h % kCount == 0 &&
                  stride.n % kCount == 0;
  plan.wide_edges = reinterpret_cast<std::uintptr_t>(p.edges) % 16 == 0 && p.w % kCount == 0;
  const unsigned blocks = unsigned((plan.threads + kThreads - 1) / kThreads);
  return launch(name, instance_edges_kernel<I>, {blocks, kThreads}, stream, p, plan);
}

}  // namespace

Status instance_edges_cuda(const InstanceEdgesParams& p, int device, void* stream) {
  const bool edge_type = p.edge_bytes == 1 || p.edge_bytes == 2 || p.edge_bytes == 4 || p.edge_bytes == 8;
  if (p.n <= 0 || p.h <= 0 || p.w <= 0 || !edge_type) return Status::kBadArgument;
  return on_device(device, [&] {
    switch (p.id_bytes) {
      case 1: return find_edges<std::uint8_t>("instance_edges<1>", p, stream);
      case 2: return find_edges<std::uint16_t>("instance_edges<2>", p, stream);
      case 4: return find_edges<std::uint32_t>("instance_edges<4>", p, stream);
      case 8: return find_edges<std::uint64_t>("instance_edges<8>", p, stream);
      default: return Status::kBadArgument;
    }
  });
}

}  // namespace torchp2p
