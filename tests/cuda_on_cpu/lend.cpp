// What the tests ask of the grid, by ctypes.
#include <cstring>
#include <unordered_map>

#include "cuda_runtime.h"

namespace {

std::unordered_map<void*, cuda_on_cpu::Guarded*>& lent() {
  static std::unordered_map<void*, cuda_on_cpu::Guarded*> all;
  return all;
}

}  // namespace

#define OFFERED extern "C" __attribute__((visibility("default")))

// A copy of a buffer between guard zones, aligned to 16 bytes as the buffer is. A source of null: poison instead.
OFFERED void* cuda_on_cpu_lend(const void* source, std::size_t address, std::size_t bytes) {
  auto* memory = new cuda_on_cpu::Guarded(bytes, address % 16);
  if (source != nullptr) {
    std::memcpy(memory->data(), source, bytes);
  } else {
    std::memset(memory->data(), cuda_on_cpu::poison(), bytes);
  }
  lent()[memory->data()] = memory;
  return memory->data();
}

// Copies it back if there is a target, and frees it. Returns whether nothing was written beside it.
OFFERED int cuda_on_cpu_take_back(void* copy, void* target) {
  cuda_on_cpu::Guarded* memory = lent().at(copy);
  if (target != nullptr) std::memcpy(target, memory->data(), memory->size());
  const bool intact = memory->intact();
  lent().erase(copy);
  delete memory;
  return intact;
}

OFFERED int cuda_on_cpu_same(const void* a, const void* b, std::size_t bytes) { return std::memcmp(a, b, bytes) == 0; }

OFFERED void cuda_on_cpu_set_shuffled(int shuffled) { cuda_on_cpu::set_shuffled(shuffled != 0); }

OFFERED void cuda_on_cpu_set_device(int multiprocessors, int shared_per_block) {
  cuda_on_cpu::device() = {multiprocessors, shared_per_block};
}
