// instance_avg_pool on the CPU.
//
// An id map is a few runs of equal ids a row (about twenty in a street scene), so all work on ids is done once a
// run. Images are cut into bands of rows, and in each band the ids are numbered from 0 as they appear:
// 1. every band: its runs, with the numbers of their ids, and the list of its ids;
// 2. every band: the sums of x over the pixels of each of its ids, in double;
// 3. every sample: bands share ids; sums of the same id are added, band after band, and become means;
// 4. every band: the means, written along the runs.
//
// Memory:   reads ids and x once, writes y once. Runs, ids, sums and means take room by their number alone.
// Parallel: over bands (step 3: over samples), which are cut by the shape alone; no sum depends on the threads.
#include <type_traits>

#include "bands.h"
#include "buffer.h"
#include "id_table.h"
#include "isa.h"
#include "parallel.h"
#include "rows.h"
#include "torchp2p/instance_avg_pool.h"
#include "vec.h"

namespace torchp2p {
namespace TORCHP2P_ISA {
namespace {

// Pixels of one row that follow each other and have the same id.
struct Run {
  std::int32_t length;
  std::int32_t number;  // of the id, within the band
};

// ------------------------------------------------------------------------------------------ runs and ids

// The first pixel from `i` on whose id is not `id`, or `end`.
template <class I> inline std::int64_t run_end(const I* ids, std::int64_t i, std::int64_t end, I id) {
  constexpr std::int64_t kStep = 16;
  typedef I Ids __attribute__((vector_size(kStep * sizeof(I))));
  typedef std::int8_t Bytes __attribute__((vector_size(kStep)));
  if (i < end && ids[i] != id) return i;
  for (; i + kStep <= end; i += kStep) {
    Ids here;
    std::memcpy(&here, ids + i, sizeof here);
    const Bytes differs = __builtin_convertvector(here != id, Bytes);  // the first pixel's in the lowest byte
    std::uint64_t halves[2];
    std::memcpy(halves, &differs, sizeof differs);
    if (halves[0] != 0) return i + __builtin_ctzll(halves[0]) / 8;
    if (halves[1] != 0) return i + kStep / 2 + __builtin_ctzll(halves[1]) / 8;
  }
  while (i < end && ids[i] == id) ++i;
  return i;
}

// The runs and the different ids of every band.
class Segments {
 public:
  Segments(const InstanceAvgPoolParams& p, const Bands& bands, int threads)
      : p_(p), bands_(bands), runs_(1, bands.count * bands.most_pixels), ids_(1, bands.count * bands.most_pixels),
        places_(3, bands.count + 1), free_(threads, 2), slots_(threads, IdTable::slots_for(bands.most_pixels)) {}

  bool ok() const { return runs_.ok() && ids_.ok() && places_.ok() && free_.ok() && slots_.ok(); }

  // Step 1. False if there is no memory.
  bool find(int threads) {
    switch (p_.id_bytes) {
      case 1: return find_typed<std::uint8_t>(threads);
      case 2: return find_typed<std::uint16_t>(threads);
      case 4: return find_typed<std::uint32_t>(threads);
      default: return find_typed<std::uint64_t>(threads);
    }
  }

  const Run* runs(std::int64_t band) const { return runs_.piece(0) + places_.piece(kRuns)[band]; }
  const std::uint64_t* ids(std::int64_t band) const { return ids_.piece(0) + places_.piece(kIds)[band]; }
  // Segments are counted through, band after band: those of a band are [first(band), first(band + 1)).
  std::int64_t first(std::int64_t band) const { return places_.piece(kFirst)[band]; }

 private:
  static constexpr std::int64_t kFewIds = 64;
  static constexpr int kRuns = 0, kIds = 1, kFirst = 2;

  template <class I> bool find_typed(int threads) {
    const Rows<I> rows(p_.ids, p_.ids_stride, p_.h, p_.w, 1);
    const Buffer<I> packed(threads, rows.buffer_size());
    if (!packed.ok()) return false;
    for (int thread = 0; thread < threads; ++thread) free_.piece(thread)[kRuns] = -1;
    std::int64_t* first = places_.piece(kFirst);
    parallel_for(bands_.count, threads, [&](std::int64_t i, int thread) {
      const Band band = bands_[i];
      IdTable numbers(slots_.piece(thread));
      numbers.clear(kFewIds < bands_.most_pixels ? kFewIds : bands_.most_pixels);
      std::int64_t* free = begin_band(i, thread);
      Run* run = runs_.piece(0) + free[kRuns];
      std::int64_t found = 0;
      for (std::int64_t h = band.begin; h < band.end; ++h) {
        const I* row = rows.row(band.n, 0, h, packed.piece(thread));
        for (std::int64_t begin = 0, end; begin < p_.w; begin = end) {
          end = run_end(row, begin + 1, p_.w, row[begin]);
          *run++ = {static_cast<std::int32_t>(end - begin),
                    number_of(row[begin], ids_.piece(0) + free[kIds], found, numbers)};
        }
      }
      free[kRuns] = run - runs_.piece(0);
      free[kIds] += found;
      first[i + 1] = found;
    });
    first[0] = 0;
    for (std::int64_t i = 0; i < bands_.count; ++i) first[i + 1] += first[i];
    return true;
  }

  // Where the thread's runs and ids go on. There is room for the most that may be found, but what a thread finds in
  // its bands stands side by side, so few pages of that are ever touched.
  std::int64_t* begin_band(std::int64_t band, int thread) const {
    std::int64_t* free = free_.piece(thread);
    if (free[kRuns] < 0) free[kRuns] = free[kIds] = band * bands_.most_pixels;
    places_.piece(kRuns)[band] = free[kRuns];
    places_.piece(kIds)[band] = free[kIds];
    return free;
  }

  // The number of `id` among the `found` ids of a band; a new one gets the next.
  static std::int32_t number_of(std::uint64_t id, std::uint64_t* ids, std::int64_t& found, IdTable& numbers) {
    if (numbers[id] >= 0) return static_cast<std::int32_t>(numbers[id]);
    if (found == numbers.room()) {
      numbers.clear(2 * found);
      for (std::int64_t k = 0; k < found; ++k) numbers[ids[k]] = k;
    }
    ids[found] = id;
    numbers[id] = found++;
    return static_cast<std::int32_t>(found - 1);
  }

  const InstanceAvgPoolParams& p_;
  const Bands& bands_;
  Buffer<Run> runs_;
  Buffer<std::uint64_t> ids_;
  Buffer<std::int64_t> places_;  // of each band: first run, first id, first segment
  Buffer<std::int64_t> free_;    // of each thread: first free run, first free id
  Buffer<IdTable::Slot> slots_;
};

// ------------------------------------------------------------------------------------------ sums of runs

// Sums in double, one for each lane of a register of A.
template <class A> class LaneSums {
 public:
  void add(Vec<A> v) {
    if constexpr (kParts == 1) {
      parts_[0] += v;
    } else {
      typedef float Half __attribute__((vector_size(kVectorBytes / 2)));
      Half half[2];
      std::memcpy(half, &v, sizeof v);
      parts_[0] += __builtin_convertvector(half[0], Vec<double>);
      parts_[1] += __builtin_convertvector(half[1], Vec<double>);
    }
  }

  // Adds lanes c, c + channels, c + 2 * channels, ... below `lanes` to totals[c], for each of the channels.
  void fold(std::int64_t channels, std::int64_t lanes, double* totals) const {
    if (channels == 1 && lanes == kLanes<A>) {
      totals[0] += sum_lanes<double>(kParts == 1 ? parts_[0] : parts_[0] + parts_[kParts - 1]);
      return;
    }
    double values[kLanes<A>];
    std::memcpy(values, parts_, sizeof values);
    for (std::int64_t i = 0; i < lanes; i += channels) {
      for (std::int64_t c = 0; c < channels; ++c) totals[c] += values[i + c];
    }
  }

 private:
  static constexpr int kParts = static_cast<int>(sizeof(double) / sizeof(A));

  Vec<double> parts_[kParts] = {};
};

template <class A> inline Vec<A> first_lanes(Vec<A> v, int count) {
  using Mask = typename VecOf<A>::mask;
  Mask lane;
  for (int k = 0; k < kLanes<A>; ++k) lane[k] = k;
  return lane < Mask{} + count ? v : Vec<A>{};
}

// Adds the values [begin, end) of a row of `width` values, register after register, `step` values apart. Lanes from
// `step` on are not told apart from what follows, and mean nothing.
template <class T>
inline LaneSums<Accumulator<T>> sum_lanes_of(const T* row, std::int64_t begin, std::int64_t end, std::int64_t step,
                                             std::int64_t width) {
  using A = Accumulator<T>;
  constexpr std::int64_t kStep = kLanes<A>;
  LaneSums<A> sums;
  std::int64_t i = begin;
  for (; i + step <= end && i + kStep <= width; i += step) sums.add(load(row + i));
  for (; i < end; i += step) {
    std::int64_t lanes = end - i < kStep ? end - i : kStep;
    if (i + kStep <= width) {
      sums.add(first_lanes<A>(load(row + i), static_cast<int>(lanes)));
    } else {
      if (lanes > width - i) lanes = width - i;
      sums.add(load_some(row + i, static_cast<int>(lanes), Vec<A>{}));
    }
  }
  return sums;
}

template <class T> class Pool {
  using A = Accumulator<T>;
  using Bits = std::conditional_t<sizeof(T) == 2, std::uint16_t,
                                  std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>>;

 public:
  Pool(const InstanceAvgPoolParams& p, const Bands& bands, const Segments& segments, int threads)
      : p_(p), bands_(bands), segments_(segments), threads_(threads), cell_(p.channels_last ? p.c : 1),
        x_(p.x, p.x_stride, p.h, p.w, cell_), packed_(threads, x_.buffer_size()),
        sums_(1, segments.first(bands.count) * (p.c + 1)), home_(1, segments.first(bands.count)),
        means_(1, segments.first(bands.count) * p.c), slots_(threads, IdTable::slots_for(most_segments())) {}

  bool ok() const { return packed_.ok() && sums_.ok() && home_.ok() && means_.ok() && slots_.ok(); }

  void run() {
    parallel_for(bands_.count, threads_, [&](std::int64_t i, int thread) { add_up(i, thread); });
    parallel_for(p_.n, threads_, [&](std::int64_t n, int thread) { join(n, thread); });
    parallel_for(bands_.count, threads_, [&](std::int64_t i, int) { write(i); });
  }

 private:
  // The sums of a segment: C channels, then the number of its pixels.
  double* sums(std::int64_t segment) const { return sums_.piece(0) + segment * (p_.c + 1); }

  std::int64_t most_segments() const {
    std::int64_t most = 0;
    for (std::int64_t n = 0; n < p_.n; ++n) {
      const std::int64_t here = segments_.first((n + 1) * bands_.per_sample) - segments_.first(n * bands_.per_sample);
      if (here > most) most = here;
    }
    return most;
  }

  // Step 2.
  void add_up(std::int64_t i, int thread) const {
    const Band band = bands_[i];
    double* totals = sums(segments_.first(i));
    const std::int64_t stride = p_.c + 1, count = segments_.first(i + 1) - segments_.first(i);
    for (std::int64_t k = 0; k < count * stride; ++k) totals[k] = 0;
    for (std::int64_t c = 0; c < p_.c; c += cell_) {
      const Run* run = segments_.runs(i);
      for (std::int64_t h = band.begin; h < band.end; ++h) {
        const T* row = x_.row(band.n, c, h, packed_.piece(thread));
        for (std::int64_t begin = 0; begin < p_.w; begin += run++->length) {
          double* total = totals + run->number * stride;
          const std::int64_t end = begin + run->length;
          if (c == 0) total[p_.c] += static_cast<double>(run->length);
          add_run(row, begin, end, total + c);
        }
      }
    }
  }

  // Adds the pixels [begin, end) of a row to the totals of its channels: whole pixels a register, or some channels
  // at a time of those that fill more than one.
  void add_run(const T* row, std::int64_t begin, std::int64_t end, double* totals) const {
    constexpr std::int64_t kStep = kLanes<A>;
    if (cell_ <= kStep) {
      const std::int64_t step = kStep / cell_ * cell_;
      sum_lanes_of(row, begin * cell_, end * cell_, step, p_.w * cell_).fold(cell_, step, totals);
      return;
    }
    for (std::int64_t c = 0; c < cell_; c += kStep) {
      const std::int64_t lanes = cell_ - c < kStep ? cell_ - c : kStep;
      sum_lanes_of(row + c, begin * cell_, end * cell_, cell_, p_.w * cell_ - c).fold(lanes, lanes, totals + c);
    }
  }

  // Step 3.
  void join(std::int64_t n, int thread) const {
    const std::int64_t begin = segments_.first(n * bands_.per_sample);
    const std::int64_t end = segments_.first((n + 1) * bands_.per_sample);
    std::int64_t* home = home_.piece(0);
    IdTable first_with(slots_.piece(thread));
    first_with.clear(end - begin);
    std::int64_t segment = begin;
    for (std::int64_t i = n * bands_.per_sample; i < (n + 1) * bands_.per_sample; ++i) {
      const std::uint64_t* ids = segments_.ids(i);
      for (std::int64_t k = 0; segment < segments_.first(i + 1); ++k, ++segment) {
        std::int64_t& first = first_with[ids[k]];
        if (first < 0) first = segment;
        home[segment] = first;
        if (first == segment) continue;
        for (std::int64_t c = 0; c <= p_.c; ++c) sums(first)[c] += sums(segment)[c];
      }
    }
    for (segment = begin; segment < end; ++segment) {
      const double* total = sums(home[segment]);
      Bits* mean = means_.piece(0) + segment * p_.c;
      for (std::int64_t c = 0; c < p_.c; c += kLanes<A>) {
        Vec<A> v{};
        const int lanes = p_.c - c < kLanes<A> ? static_cast<int>(p_.c - c) : kLanes<A>;
        for (int k = 0; k < lanes; ++k) v[k] = static_cast<A>(total[c + k] / total[p_.c]);
        T rounded[kLanes<A>];
        store(rounded, v);
        std::memcpy(mean + c, rounded, static_cast<std::size_t>(lanes) * sizeof(T));
      }
    }
  }

  // Step 4. Whole registers are written: what is too much at the end of a run, the next run writes over.
  void write(std::int64_t i) const {
    const Band band = bands_[i];
    const Bits* means = means_.piece(0) + segments_.first(i) * p_.c;
    for (std::int64_t c = 0; c < p_.c; c += cell_) {
      const std::int64_t plane = p_.channels_last ? band.n : band.n * p_.c + c;
      Bits* y = static_cast<Bits*>(p_.y) + (plane * p_.h + band.begin) * p_.w * cell_;
      const Bits* const end = y + band.rows() * p_.w * cell_;
      for (const Run* run = segments_.runs(i); y < end; ++run) {
        Bits* const stop = y + run->length * cell_;
        repeat(means + run->number * p_.c + c, y, stop, end);
        y = stop;
      }
    }
  }

  // Fills [y, stop) with a pixel, over and over; may write on up to `end`.
  void repeat(const Bits* pixel, Bits* y, const Bits* stop, const Bits* end) const {
    constexpr std::int64_t kTile = kVectorBytes / static_cast<std::int64_t>(sizeof(T));
    if (cell_ > kTile) {
      for (; y < stop; y += cell_) std::memcpy(y, pixel, static_cast<std::size_t>(cell_) * sizeof(T));
      return;
    }
    Bits tile[kTile];
    std::int64_t step = kTile / cell_ * cell_;
    if (cell_ == 1) {
      for (Bits& value : tile) value = *pixel;
    } else {
      for (std::int64_t k = 0; k < step; k += cell_) {
        for (std::int64_t c = 0; c < cell_; ++c) tile[k + c] = pixel[c];
      }
    }
    for (; y < stop; y += step) {
      if (end - y >= kTile) {
        std::memcpy(y, tile, sizeof tile);
      } else {
        for (std::int64_t k = 0; y + k < stop; ++k) y[k] = tile[k];
      }
    }
  }

  const InstanceAvgPoolParams& p_;
  const Bands& bands_;
  const Segments& segments_;
  const int threads_;
  const std::int64_t cell_;
  const Rows<T> x_;
  const Buffer<T> packed_;
  const Buffer<double> sums_;
  const Buffer<std::int64_t> home_;  // of each segment: the first of its sample with the same id
  const Buffer<Bits> means_;
  const Buffer<IdTable::Slot> slots_;
};

template <class T> Status pool(const InstanceAvgPoolParams& p, const Bands& bands, const Segments& segments,
                               int threads) {
  Pool<T> pool(p, bands, segments, threads);
  if (!pool.ok()) return Status::kOutOfMemory;
  pool.run();
  return Status::kOk;
}

}  // namespace

Status instance_avg_pool(const InstanceAvgPoolParams& p) {
  const bool sizes = p.n > 0 && p.c > 0 && p.h > 0 && p.w > 0 && p.w <= INT32_MAX;
  const bool id_type = p.id_bytes == 1 || p.id_bytes == 2 || p.id_bytes == 4 || p.id_bytes == 8;
  if (!sizes || !id_type) return Status::kBadArgument;
  const int threads = thread_count(p.n * p.c * p.h * p.w);
  const Bands bands(p.n, p.h, p.w);
  Segments segments(p, bands, threads);
  if (!segments.ok() || !segments.find(threads)) return Status::kOutOfMemory;
  switch (p.dtype) {
    case DType::kFloat32: return pool<float>(p, bands, segments, threads);
    case DType::kBFloat16: return pool<BFloat16>(p, bands, segments, threads);
    case DType::kFloat16: return pool<Float16>(p, bands, segments, threads);
    case DType::kFloat64: return pool<double>(p, bands, segments, threads);
  }
  return Status::kBadArgument;
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p

TORCHP2P_CPU_ENTRY(instance_avg_pool, InstanceAvgPoolParams)
