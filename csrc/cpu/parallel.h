// Loops over independent pieces. How many threads run never changes what is computed, only when.
#pragma once

#include <cstdint>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace torchp2p {
namespace TORCHP2P_ISA {

// Below this many elements a parallel region costs more than it saves (it starts in about 2 microseconds).
constexpr std::int64_t kParallelElements = 32768;

inline int thread_count(std::int64_t elements) {
#if defined(_OPENMP)
  return elements < kParallelElements || omp_in_parallel() ? 1 : omp_get_max_threads();
#else
  return 1;
#endif
}

// body(i, thread) for i in [0, count); each thread takes one contiguous range.
template <class Body>
inline void parallel_for(std::int64_t count, int threads, const Body& body) {
#if defined(_OPENMP)
  if (threads > 1 && count > 1) {
#pragma omp parallel num_threads(threads)
    {
      const int thread = omp_get_thread_num(), running = omp_get_num_threads();
      const std::int64_t begin = count * thread / running, end = count * (thread + 1) / running;
      for (std::int64_t i = begin; i < end; ++i) body(i, thread);
    }
    return;
  }
#endif
  for (std::int64_t i = 0; i < count; ++i) body(i, 0);
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
