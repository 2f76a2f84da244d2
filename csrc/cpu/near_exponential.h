// exp in float alone, fast enough to keep up with memory: for arguments from -22 to 22, to 2e-7 of the result.
#pragma once

#include "vec.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

// The powers 2^(i / kPowers) fill a register where one instruction looks up all lanes in it; else there is 2^0 alone.
#if defined(__AVX2__)
constexpr int kPowers = kFloats;
#else
constexpr int kPowers = 1;
#endif

inline Vec<float> looked_up(Vec<float> table, [[maybe_unused]] U32 index) {
#if defined(__AVX512F__)
  return _mm512_maskz_permutexvar_ps(0xffff, reinterpret_cast<__m512i>(index), table);
#elif defined(__AVX2__)
  return _mm256_permutevar8x32_ps(table, reinterpret_cast<__m256i>(index));
#else
  return table;
#endif
}

// exp(sign * x), sign being 1 or -1: with sign * x = k / kPowers * ln 2 + r, k an integer, it is 2 to the whole part of
// k / kPowers (by its exponent), times 2 to the rest of that (looked up), times exp(r) (a polynomial). The factors that
// lead to k and r take the sign in, so that it costs nothing.
class NearExponential {
 public:
  explicit NearExponential(float sign) : sign_(sign), powers_(powers()) {}

  Vec<float> operator()(Vec<float> x) {
    const Vec<float> shifted = x * (sign_ * kPowers * 1.44269504f) + kMagic;
    const U32 bits = reinterpret_cast<U32>(shifted);
    seen_ |= bits ^ reinterpret_cast<U32>(broadcast(kMagic - kBias));
    const Vec<float> p = minus_one(x, shifted - kMagic);
    const Vec<float> power =
        reinterpret_cast<Vec<float>>(reinterpret_cast<U32>(looked_up(powers_, bits)) + (bits << kShift));
    return power * p + power;
  }

  // Whether all arguments have been near enough (and so none a nan): if not, no result is to be used.
  bool all_near() const {
    std::uint32_t seen = 0;
    for (int lane = 0; lane < kFloats; ++lane) seen |= seen_[lane];
    return seen < 2 * kBias;
  }

 private:
  static constexpr int kShift = kPowers == 16 ? 19 : kPowers == 8 ? 20 : 23;  // from units of k to the exponent
  static constexpr int kBias = 32 * kPowers;            // k + kBias, not negative, is in the lowest bits of
  static constexpr float kMagic = 12582912.0f + kBias;  // 1.5 * 2^23 + kBias + k: this addition rounds to an integer

  // 2^(i / kPowers) / 2^32, which takes the bias back, less the bits of i that (bits << kShift) brings along.
  static Vec<float> powers() {
    struct Table {
      float value[kFloats] = {};
      constexpr Table() {
        double power = 0x1p-32;
        for (float& each : value) {
          each = static_cast<float>(power);
          if (kPowers > 1) power *= kPowers == 16 ? 1.04427378242741384 : 1.09050773266525766;
        }
      }
    };
    static constexpr Table table;
    U32 bits = reinterpret_cast<U32>(load(table.value));
    for (std::uint32_t i = 0; i < kPowers; ++i) bits[i] -= i << kShift;
    return reinterpret_cast<Vec<float>>(bits);
  }

  // exp(r) - 1 for |r| <= R = ln 2 / (2 kPowers), minimax polynomials both.
  Vec<float> minus_one(Vec<float> x, Vec<float> k) const {
    if constexpr (kPowers > 1) {  // and there is a fused multiply-add, which rounds r once
      constexpr float kR = 0.34657359f / kPowers;
      const Vec<float> r = x - k * (sign_ * 0.693147181f / kPowers);
      return ((r * (sign_ * 0.16666667f) + (0.5f + 0.828f / 24 * kR * kR)) * r + sign_) * r;
    }
    const Vec<float> r = (x - k * (sign_ * 0.693115234375f)) - k * (sign_ * 3.19461833e-05f);  // k 0.69... is exact
    Vec<float> p = broadcast(1.38436e-3f);
    p = p * r + sign_ * 8.3742e-3f;
    p = p * r + 4.1668e-2f;
    p = p * r + sign_ * 0.16666431f;
    p = p * r + 0.49999994f;
    p = p * r + sign_;
    return p * r;
  }

  float sign_;
  Vec<float> powers_;
  U32 seen_{};
};

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
