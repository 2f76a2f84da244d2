// instance_edges on CUDA.
//
// Computes: edges[n, y, x] = 1 where the id at (y, x) is not that of all of its neighbours in the image.
// Memory:   reads every id once, those above and below a band again (from L2); writes every edge once.
// Parallel: a thread takes kRows rows of a few pixels side by side; all its rows, and those above and below, are on
// their
//           way before the first is looked at. The ids beyond its ends come from L1, where its neighbours load them.
#include "launch.h"
#include "row.h"
#include "torchp2p/instance_edges.h"

namespace torchp2p {
namespace {

constexpr int kThreads = 256;
constexpr int kRows = 4;
// Pixels of a thread: 16 bytes of ids, but no less than 4 pixels and no more than 8.
template <class I> constexpr int kWidth = sizeof(I) < 4 ? 8 : 4;

struct Plan {
  std::int64_t groups, bands, threads;  // of pixels in a row, of rows in an image, in all
  bool wide_ids, wide_edges;            // whether whole rows of a thread may be loaded and stored at once
};

// The ids of a thread in one row, as they lie in memory: small ones share a register.
template <class I> struct Ids {
  static constexpr int kWords = kWidth<I> * int(sizeof(I)) / 4;
  Row<unsigned, kWords> words;

  // Beyond the end of the image the last id is repeated.
  __device__ void load(const I* row, std::int64_t stride, int count, bool wide) {
    if (wide && count == kWidth<I>) {
      words = load_row<unsigned, kWords>(reinterpret_cast<const unsigned*>(row));
      return;
    }
#pragma unroll
    for (unsigned& word : words.values) word = 0;
#pragma unroll
    for (int i = 0; i < kWidth<I>; ++i) {
      const I id = row[(i < count ? i : count - 1) * stride];
      if constexpr (sizeof(I) == 8) {
        words.values[2 * i] = unsigned(id);
        words.values[2 * i + 1] = unsigned(id >> 32);
      } else {
        words.values[i / kPerWord] |= unsigned(id) << (i % kPerWord * 8 * int(sizeof(I)));
      }
    }
  }

  __device__ I operator[](int i) const {
    if constexpr (sizeof(I) == 8) return words.values[2 * i] | I(words.values[2 * i + 1]) << 32;
    return I(words.values[i / kPerWord] >> (i % kPerWord * 8 * int(sizeof(I))));
  }

 private:
  static constexpr int kPerWord = sizeof(I) < 4 ? 4 / int(sizeof(I)) : 1;
};

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

template <class I> __global__ void __launch_bounds__(kThreads) instance_edges_kernel(InstanceEdgesParams p, Plan plan) {
  const std::int64_t thread = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  if (thread >= plan.threads) return;
  const std::int64_t x = thread % plan.groups * kWidth<I>, band = thread / plan.groups % plan.bands;
  const std::int64_t n = thread / plan.groups / plan.bands;
  const int count = p.w - x < kWidth<I> ? int(p.w - x) : kWidth<I>;
  const Strides& stride = p.ids_stride;
  const I* const column = static_cast<const I*>(p.ids) + n * stride.n + x * stride.w;

  const std::int64_t begin = band * kRows;
  Ids<I> rows[kRows + 2];  // from the one above the band to the one below; at the border of the image its own stand in
#pragma unroll
  for (int r = 0; r < kRows + 2; ++r) {
    const std::int64_t y = begin + r - 1, inside = y < 0 ? 0 : y < p.h ? y : p.h - 1;
    rows[r].load(column + inside * stride.h, stride.w, count, plan.wide_ids);
  }
  I left[kRows], beyond[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const I* const ids = column + (begin + r < p.h ? begin + r : p.h - 1) * stride.h;
    left[r] = x > 0 ? ids[-stride.w] : rows[r + 1][0];
    beyond[r] = x + kWidth<I> < p.w ? ids[kWidth<I> * stride.w] : rows[r + 1][kWidth<I> - 1];
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (begin + r >= p.h) return;
    const Ids<I>&above = rows[r], &row = rows[r + 1], &below = rows[r + 2];
    unsigned marks = 0;
#pragma unroll
    for (int i = 0; i < kWidth<I>; ++i) {
      const I id = row[i], before = i > 0 ? row[i - 1] : left[r], after = i + 1 < kWidth<I> ? row[i + 1] : beyond[r];
      marks |= unsigned(id != before || id != after || id != above[i] || id != below[i]) << i;
    }
    const std::int64_t at = (n * p.h + begin + r) * p.w + x;
    switch (p.edge_bytes) {
      case 1: put_edges<std::uint8_t, kWidth<I>>(p.edges, at, marks, p.one, count, plan.wide_edges); break;
      case 2: put_edges<std::uint16_t, kWidth<I>>(p.edges, at, marks, p.one, count, plan.wide_edges); break;
      case 4: put_edges<std::uint32_t, kWidth<I>>(p.edges, at, marks, p.one, count, plan.wide_edges); break;
      default: put_edges<std::uint64_t, kWidth<I>>(p.edges, at, marks, p.one, count, plan.wide_edges); break;
    }
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
  plan.wide_ids = takes_rows<unsigned, Ids<I>::kWords>(static_cast<const unsigned*>(p.ids)) && stride.w == 1 &&
                  stride.h % kCount == 0 && stride.n % kCount == 0;
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
