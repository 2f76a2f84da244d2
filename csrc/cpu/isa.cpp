#include "isa.h"

#include <cstdlib>
#include <cstring>

namespace torchp2p {
namespace {

constexpr const char* kAsked = "TORCHP2P_CPU_ISA";

CpuIsa best_supported() {
#if defined(TORCHP2P_HAVE_X86_ISAS)
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return v4 ? CpuIsa::kV4 : v3 ? CpuIsa::kV3 : CpuIsa::kBaseline;
#else
  return CpuIsa::kBaseline;
#endif
}

CpuIsa choose() {
  const CpuIsa best = best_supported();
  const char* asked = std::getenv(kAsked);
  if (asked == nullptr) return best;
  CpuIsa wanted = best;
  if (std::strcmp(asked, "baseline") == 0) wanted = CpuIsa::kBaseline;
  if (std::strcmp(asked, "v3") == 0) wanted = CpuIsa::kV3;
  return wanted < best ? wanted : best;
}

}  // namespace

CpuIsa cpu_isa() {
  static const CpuIsa chosen = choose();
  return chosen;
}

bool cpu_multiplies_bfloat16() {
#if defined(TORCHP2P_HAVE_AVX512_BF16)
  static const bool chosen =
      best_supported() == CpuIsa::kV4 && __builtin_cpu_supports("avx512bf16") && std::getenv(kAsked) == nullptr;
  return chosen;
#else
  return false;
#endif
}

const char* cpu_isa_name() {
  switch (cpu_isa()) {
    case CpuIsa::kV4: return "x86-64-v4 (AVX-512)";
    case CpuIsa::kV3: return "x86-64-v3 (AVX2)";
    case CpuIsa::kBaseline: break;
  }
  return "baseline";
}

}  // namespace torchp2p
