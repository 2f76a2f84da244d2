// Every kernel file is compiled once per instruction set, into a namespace of its own, and one is picked
// when the first kernel runs. TORCHP2P_ISA and TORCHP2P_VECTOR_BYTES come from CMakeLists.txt.
//
// Kernel files include no standard header with out-of-line templates: such code would be emitted once per
// instruction set under one name, and the linker would keep any of them.
#pragma once

namespace torchp2p {

enum class CpuIsa : int { kBaseline = 0, kV3 = 1, kV4 = 2 };

// The best that this machine and this build have; TORCHP2P_CPU_ISA=baseline|v3|v4 asks for less.
CpuIsa cpu_isa();
const char* cpu_isa_name();
// Whether this machine and this build multiply bfloat16 numbers in pairs (AVX512-BF16); not if v4 or less was asked
// for.
bool cpu_multiplies_bfloat16();

}  // namespace torchp2p

#if defined(TORCHP2P_HAVE_X86_ISAS)
#define TORCHP2P_DECLARE_ISAS(name, Params)          \
  namespace baseline { Status name(const Params&); } \
  namespace v3 { Status name(const Params&); }       \
  namespace v4 { Status name(const Params&); }
#define TORCHP2P_PICK_ISA(name, params) \
  (cpu_isa() == CpuIsa::kV4 ? v4::name(params) : cpu_isa() == CpuIsa::kV3 ? v3::name(params) : baseline::name(params))
#else
#define TORCHP2P_DECLARE_ISAS(name, Params) \
  namespace baseline { Status name(const Params&); }
#define TORCHP2P_PICK_ISA(name, params) baseline::name(params)
#endif

#if defined(TORCHP2P_HAVE_AVX512_BF16)
#define TORCHP2P_DECLARE_BFLOAT16(name, Params) \
  namespace v4_bf16 { Status name(const Params&); }
#define TORCHP2P_PICK_BFLOAT16(name, params) \
  (cpu_multiplies_bfloat16() ? v4_bf16::name(params) : TORCHP2P_PICK_ISA(name, params))
#else
#define TORCHP2P_DECLARE_BFLOAT16(name, Params)
#define TORCHP2P_PICK_BFLOAT16(name, params) TORCHP2P_PICK_ISA(name, params)
#endif

// The public entry point <name>_cpu, emitted by the baseline compilation only; the second form is for the
// kernels that are compiled for AVX512-BF16 as well.
#if defined(TORCHP2P_ISA_IS_BASELINE)
#define TORCHP2P_CPU_ENTRY(name, Params)                                              \
  namespace torchp2p {                                                                \
  TORCHP2P_DECLARE_ISAS(name, Params)                                                 \
  Status name##_cpu(const Params& params) { return TORCHP2P_PICK_ISA(name, params); } \
  }
#define TORCHP2P_CPU_ENTRY_BFLOAT16(name, Params)                                          \
  namespace torchp2p {                                                                     \
  TORCHP2P_DECLARE_ISAS(name, Params)                                                      \
  TORCHP2P_DECLARE_BFLOAT16(name, Params)                                                  \
  Status name##_cpu(const Params& params) { return TORCHP2P_PICK_BFLOAT16(name, params); } \
  }
#else
#define TORCHP2P_CPU_ENTRY(name, Params)
#define TORCHP2P_CPU_ENTRY_BFLOAT16(name, Params)
#endif
