// Switching between stacks. Written out for x86-64, where swapcontext would ask the kernel at every switch;
// CUDA_ON_CPU_PORTABLE asks for what other processors use.
#pragma once

#include <ucontext.h>

#include <cstddef>

namespace cuda_on_cpu {

#if defined(__x86_64__) && !defined(CUDA_ON_CPU_PORTABLE)

struct Context {
  void* stack = nullptr;
};

// Saves what a called function must leave as it was, and goes on where `to` was left.
extern "C" void cuda_on_cpu_switch(void** from, void* to);
asm(R"(
.text
.local cuda_on_cpu_switch
.type cuda_on_cpu_switch, @function
cuda_on_cpu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_on_cpu_switch, .-cuda_on_cpu_switch
)");

inline void switch_to(Context& from, Context& to) { cuda_on_cpu_switch(&from.stack, to.stack); }

// The context's first switch enters body(), which never returns.
inline void prepare(Context& context, unsigned char* stack, std::size_t bytes, void (*body)()) {
  void** top = reinterpret_cast<void**>(stack + bytes);
  *--top = nullptr;  // where body() would return to; and the alignment a call leaves
  *--top = reinterpret_cast<void*>(body);
  for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
  context.stack = top;
}

#else

struct Context {
  ucontext_t context;
};

inline void switch_to(Context& from, Context& to) { swapcontext(&from.context, &to.context); }

inline void prepare(Context& context, unsigned char* stack, std::size_t bytes, void (*body)()) {
  getcontext(&context.context);
  context.context.uc_stack.ss_sp = stack;
  context.context.uc_stack.ss_size = bytes;
  context.context.uc_link = nullptr;
  makecontext(&context.context, body, 0);
}

#endif

}  // namespace cuda_on_cpu
