// Runs grids: the fibers of a block, their barriers, and the faults.
#include "cuda_runtime.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include <cstdio>
#include <mutex>
#include <numeric>
#include <random>
#include <vector>

#include "fiber.h"

namespace cuda_on_cpu {
namespace {

constexpr int kWarp = 32;
constexpr std::size_t kStack = 64 * 1024, kStackGuard = 4096;

enum class State { kReady, kAtBarrier, kInWarp, kEnded };

struct Thread {
  Context context;
  State state;
};

// One rendezvous of the lanes of a mask. Values are kept in two places in turn: a lane may bring the next one while
// another has not read the last.
struct Meeting {
  unsigned mask = 0, arrived = 0;
  std::uint64_t values[2][kWarp];
  int turn = 0;
};

struct Warp {
  std::vector<Meeting> meetings;
};

std::mutex one_grid_at_a_time;
std::vector<Thread> threads;
std::vector<Warp> warps;
unsigned char* stacks = nullptr;
std::size_t stack_count = 0;
Context scheduler;
int current = 0;
const std::function<void()>* body = nullptr;
std::uint64_t blocks_run = 0;
Guarded* dynamic_memory = nullptr;
bool shuffled_order = false;
sigjmp_buf after_fault;
std::mt19937 dice;

cudaError_t last_error = cudaSuccess;
char words[512] = "";

// --- faults ---------------------------------------------------------------------------------------------

void note(const char* what) {
  std::snprintf(words, sizeof words, "%s, thread (%u, %u, %u) of block (%u, %u, %u)", what, threadIdx.x, threadIdx.y,
                threadIdx.z, blockIdx.x, blockIdx.y, blockIdx.z);
  last_error = cudaErrorLaunchFailure;
}

[[noreturn]] void fault(const char* what) {
  note(what);
  siglongjmp(after_fault, 1);
}

void on_bad_address(int, siginfo_t* info, void*) {
  char what[256];
  const auto* address = static_cast<unsigned char*>(info->si_addr);
  const Guarded* buffer = near(address);
  if (buffer == nullptr) {
    std::snprintf(what, sizeof what, "out of bounds: address %p, near no buffer", info->si_addr);
  } else if (address < buffer->data()) {
    std::snprintf(what, sizeof what, "out of bounds: %zu bytes before a buffer of %zu",
                  std::size_t(buffer->data() - address), buffer->size());
  } else {
    std::snprintf(what, sizeof what, "out of bounds: %zu bytes after the end of a buffer of %zu",
                  std::size_t(address - buffer->data() - buffer->size()), buffer->size());
  }
  fault(what);
}

// Bad addresses become faults while it lives.
class Watch {
 public:
  Watch() {
    static unsigned char memory[64 * 1024];
    stack_t own{};
    own.ss_sp = memory;
    own.ss_size = sizeof memory;
    sigaltstack(&own, &stack_before_);
    struct sigaction action{};
    action.sa_sigaction = on_bad_address;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &segv_before_);
    sigaction(SIGBUS, &action, &bus_before_);
  }
  ~Watch() {
    sigaction(SIGSEGV, &segv_before_, nullptr);
    sigaction(SIGBUS, &bus_before_, nullptr);
    sigaltstack(&stack_before_, nullptr);
  }

 private:
  stack_t stack_before_;
  struct sigaction segv_before_, bus_before_;
};

// --- a block --------------------------------------------------------------------------------------------

void thread_main() {
  (*body)();
  threads[current].state = State::kEnded;
  switch_to(threads[current].context, scheduler);
  __builtin_unreachable();
}

void wait_as(State state) {
  Thread& self = threads[current];
  self.state = state;
  switch_to(self.context, scheduler);
}

void resume(int thread) {
  current = thread;
  const unsigned t = unsigned(thread);
  threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y)};
  switch_to(scheduler, threads[thread].context);
}

void make_stacks(std::size_t count) {
  if (count <= stack_count) return;
  if (stacks != nullptr) munmap(stacks, stack_count * kStack);
  stack_count = count;
  stacks = static_cast<unsigned char*>(
      mmap(nullptr, count * kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  for (std::size_t i = 0; i < count; ++i) mprotect(stacks + i * kStack, kStackGuard, PROT_NONE);
}

void start_block(std::size_t count, std::size_t dynamic_bytes) {
  ++blocks_run;
  threads.resize(count);
  warps.assign((count + kWarp - 1) / kWarp, Warp{});
  for (std::size_t i = 0; i < count; ++i) {
    threads[i].state = State::kReady;
    prepare(threads[i].context, stacks + i * kStack, kStack, thread_main);
  }
  if (dynamic_bytes) std::memset(dynamic_memory->data(), poison(), dynamic_memory->size());
}

std::vector<int> order_of(int count) {
  std::vector<int> order(count);
  std::iota(order.begin(), order.end(), 0);
  if (shuffled_order) std::shuffle(order.begin(), order.end(), dice);
  return order;
}

// Runs every thread of a warp that can go on until none can. Returns whether any ran.
bool run_warp(int warp) {
  const int first = warp * kWarp, last = std::min(first + kWarp, int(threads.size()));
  bool any = false;
  for (bool again = true; again; any |= again) {
    again = false;
    for (int lane : order_of(last - first)) {
      if (threads[first + lane].state != State::kReady) continue;
      resume(first + lane);
      again = true;
    }
  }
  return any;
}

[[noreturn]] void stuck() {
  int in_warp = -1, at_barrier = -1;
  for (int i = 0; i < int(threads.size()); ++i) {
    if (threads[i].state == State::kInWarp) in_warp = i;
    if (threads[i].state == State::kAtBarrier) at_barrier = i;
  }
  const unsigned t = unsigned(in_warp >= 0 ? in_warp : at_barrier);
  threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y)};
  fault(in_warp >= 0 ? "a warp operation waits for lanes that do not come" : "a barrier is not reached by all threads");
}

void run_block() {
  for (;;) {
    bool any = false;
    for (int warp : order_of(int(warps.size()))) any |= run_warp(warp);
    int waiting = 0, ended = 0;
    for (const Thread& thread : threads) {
      waiting += thread.state == State::kAtBarrier;
      ended += thread.state == State::kEnded;
    }
    if (ended == int(threads.size())) return;
    if (waiting == int(threads.size())) {
      for (Thread& thread : threads) thread.state = State::kReady;
    } else if (!any) {
      stuck();
    }
  }
}

void run_blocks(dim3 blocks, std::size_t threads_in_block, std::size_t dynamic_bytes) {
  const std::uint64_t count = std::uint64_t(blocks.x) * blocks.y * blocks.z;
  for (std::uint64_t i : order_of(int(count))) {
    blockIdx = {unsigned(i % blocks.x), unsigned(i / blocks.x % blocks.y), unsigned(i / blocks.x / blocks.y)};
    start_block(threads_in_block, dynamic_bytes);
    run_block();
    if (dynamic_memory != nullptr && !dynamic_memory->intact()) fault("a write beside the dynamic shared memory");
  }
}

}  // namespace

// --- what kernels call ----------------------------------------------------------------------------------

void sync_threads() { wait_as(State::kAtBarrier); }

int lane_index() { return current % kWarp; }

const std::uint64_t* exchange(unsigned mask, std::uint64_t value) {
  const int lane = lane_index(), warp = current / kWarp;
  if (!(mask >> lane & 1)) fault("a warp operation whose mask leaves out the lane that calls it");
  auto& meetings = warps[warp].meetings;
  std::size_t place = 0;
  while (place < meetings.size() && meetings[place].mask != mask) ++place;
  if (place == meetings.size()) meetings.emplace_back().mask = mask;
  const int turn = meetings[place].turn;
  meetings[place].values[turn][lane] = value;
  meetings[place].arrived |= 1u << lane;
  if (meetings[place].arrived != mask) {
    wait_as(State::kInWarp);
  } else {
    meetings[place].arrived = 0;
    meetings[place].turn = 1 - turn;
    for (int other = 0; other < kWarp; ++other) {
      if (mask >> other & 1) threads[warp * kWarp + other].state = State::kReady;
    }
  }
  return warps[warp].meetings[place].values[turn];
}

void* shared_bytes(SharedArray& array, std::size_t bytes) {
  if (array.memory == nullptr) array.memory = new Guarded(bytes);  // lives as long as the process, like the array
  if (array.block != blocks_run) {
    if (!array.memory->intact()) fault("a write beside a shared array");
    std::memset(array.memory->data(), poison(), bytes);
    array.block = blocks_run;
  }
  return array.memory->data();
}

void* dynamic_shared() {
  if (dynamic_memory == nullptr) fault("the launch asked for no dynamic shared memory");
  return dynamic_memory->data();
}

void set_shuffled(bool shuffled) { shuffled_order = shuffled; }
unsigned char poison() { return shuffled_order ? 0x5a : 0xff; }

Device& device() {
  static Device the_one;
  return the_one;
}

void run(dim3 blocks, dim3 block, std::size_t shared, const std::function<void()>& kernel) {
  const std::lock_guard<std::mutex> lock(one_grid_at_a_time);
  const std::size_t count = std::size_t(block.x) * block.y * block.z;
  if (count == 0 || count > 1024 || block.z > 64 || blocks.y > 65535 || blocks.z > 65535 ||
      shared > std::size_t(device().shared_per_block)) {
    last_error = cudaErrorInvalidConfiguration;
    std::snprintf(words, sizeof words, "the device takes no such grid");
    return;
  }
  gridDim = blocks;
  blockDim = block;
  body = &kernel;
  dice.seed(1);
  make_stacks(count);
  dynamic_memory = shared ? new Guarded(shared) : nullptr;
  {
    const Watch watch;
    if (sigsetjmp(after_fault, 1) == 0) run_blocks(blocks, count, shared);
  }
  delete dynamic_memory;
  dynamic_memory = nullptr;
}

}  // namespace cuda_on_cpu

// --- the runtime ----------------------------------------------------------------------------------------

cudaError_t cudaGetLastError() {
  const cudaError_t error = cuda_on_cpu::last_error;
  cuda_on_cpu::last_error = cudaSuccess;
  return error;
}

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorInvalidDevice ? "invalid device ordinal" : cuda_on_cpu::words;
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
  }
  return "unknown";
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const cuda_on_cpu::Device& device = cuda_on_cpu::device();
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = device.multiprocessors; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = device.shared_per_block; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = device.shared_per_block + 1024; break;
  }
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int value) {
  if (value <= cuda_on_cpu::device().shared_per_block) return cudaSuccess;
  std::snprintf(cuda_on_cpu::words, sizeof cuda_on_cpu::words, "invalid argument");
  return cudaErrorInvalidValue;
}
