// A grid of threads on the CPU: blocks one after the other, the threads of a block as fibers that run until they wait.
//
// Faults end the grid and become its launch error, with the thread and the block: an address outside every buffer
// (guard pages lie around buffers and shared arrays), a barrier that some threads never reach, a warp operation that
// names lanes which do not come. Shared memory starts as poison. In the shuffled order, blocks, warps and lanes run in
// a random order, with another poison: whatever depends on a missing barrier or on memory never written comes out
// differently.
//
// Not found: threads that wait for one another by reading memory in a loop (they would wait for ever).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace cuda_on_cpu {

// Memory whose end lies against a page that nobody may touch, and canaries between its front and another such page.
class Guarded {
 public:
  // Starts at a multiple of 16 bytes, plus `offset` bytes.
  Guarded(std::size_t bytes, std::size_t offset = 0);
  ~Guarded();
  Guarded(const Guarded&) = delete;

  unsigned char* data() const { return data_; }
  std::size_t size() const { return size_; }
  bool surrounds(const void* address) const;  // whether the address is in its guard pages
  bool intact() const;                        // whether no canary was overwritten

 private:
  unsigned char *pages_, *data_;
  std::size_t span_, size_;
};

// Memory given to a kernel as shared array or by lend(); faults name the nearest.
const Guarded* near(const void* address);

void set_shuffled(bool shuffled);
unsigned char poison();  // what memory holds that nobody has written, in the order set

// One array in shared memory: a static object at the place of its declaration.
struct SharedArray {
  Guarded* memory = nullptr;
  std::uint64_t block = 0;  // the block that it was poisoned for
};
void* shared_bytes(SharedArray& array, std::size_t bytes);
template <class T> T* shared(SharedArray& array, int count) {
  return static_cast<T*>(shared_bytes(array, sizeof(T) * std::size_t(count)));
}
void* dynamic_shared();

void sync_threads();
int lane_index();
// Waits for all lanes of the mask, each with a value; returns those of all lanes, valid until the next exchange.
const std::uint64_t* exchange(unsigned mask, std::uint64_t value);

void run(dim3 blocks, dim3 threads, std::size_t shared, const std::function<void()>& kernel);

// The device that the kernels see.
struct Device {
  int multiprocessors = 4;
  int shared_per_block = 99 * 1024;
};
Device& device();

}  // namespace cuda_on_cpu
