// How the frequencies of Winograd's convolution lie in memory, so that one matrix product reads them as they are
// written: panels of channels, for every frequency (tiles, channels of the panel).
//
// A product takes its terms from units: a value, or, where the CPU multiplies pairs of bfloat16 numbers and adds both
// products to a float, such a pair. What is summed over makes the pairs: channels that lie side by side in the
// convolution and in the gradient of its input (Pairing::kChannels), neighbouring tiles in the gradient of the weight.
#pragma once

#include "vec.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

// Channels of a panel: as many as fit the accumulators of the matrix product.
constexpr int kPanelRegisters = 2;
template <class A> constexpr int kPanel = kPanelRegisters * kLanes<A>;

// Rows that the matrix product takes at a time; with AVX-512 there are twice as many registers.
constexpr int kRows = kVectorBytes == 64 ? 8 : 4;

// Into which cache, as __builtin_prefetch calls them.
constexpr int kFirstLevel = 3, kSecondLevel = 2;

template <int kLevel, class T> inline void prefetch(const T* from, std::int64_t count) {
  constexpr std::int64_t kPerLine = 64 / static_cast<std::int64_t>(sizeof(T));
  for (std::int64_t i = 0; i < count; i += kPerLine) __builtin_prefetch(from + i, 0, kLevel);
}

inline std::int64_t round_up(std::int64_t value, std::int64_t step) { return (value + step - 1) / step * step; }

enum class Pairing { kChannels, kTiles };

template <class A> struct Singles {
  using Value = A;
  using Unit = A;
  static constexpr int kPack = 1;

  static Vec<A> all(const Unit* p) { return broadcast(*p); }
  static void add_product(Vec<A>& sum, Vec<A> a, const Unit* b) { sum += a * load(b); }

  // Values of neighbouring channels.
  static void store_channels(Unit* to, Vec<A> values) { store(to, values); }
};

#if defined(__AVX512BF16__)
struct Pairs {
  using Value = float;
  using Unit = std::uint32_t;
  static constexpr int kPack = 2;

  static U32 all(const Unit* p) { return *p - U32{}; }
  static void add_product(Vec<float>& sum, U32 a, const Unit* b) {
    sum = _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(_mm512_loadu_si512(b)));
  }

  static void store_channels(Unit* to, Vec<float> values) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), rounded(values));
  }
  // Values with those that are summed next, of the same channels.
  static void store_pairs(Unit* to, Vec<float> values, Vec<float> next) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i halves = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(next, values));
    _mm512_storeu_si512(to, _mm512_permutexvar_epi16(order, halves));
  }

 private:
  static __m256i rounded(Vec<float> values) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values)); }
};
#endif

// How images of T are multiplied.
template <class T> struct ProductOf {
  using type = Singles<Accumulator<T>>;
};
#if defined(__AVX512BF16__)
template <> struct ProductOf<BFloat16> {
  using type = Pairs;
};
#endif

// The frequencies of an image in units: (panels, F, tiles, channels of a panel) values. Products take the frequencies
// of a panel in turn, so what they read next lies behind what they read.
template <class Product, int kCount> struct Frequencies {
  using Unit = typename Product::Unit;
  static constexpr int kPack = Product::kPack, kWidth = kPanel<typename Product::Value>;

  Unit* units;
  std::int64_t panels, tiles;

  std::int64_t frequency_units() const { return tiles * kWidth / kPack; }
  std::int64_t panel_units() const { return kCount * frequency_units(); }
  Unit* at(std::int64_t panel, int frequency) const {
    return units + panel * panel_units() + frequency * frequency_units();
  }
};

// Tiles from `first` on, which are there to make whole rows of the product, become 0.
template <class Product, int kCount>
inline void clear_tiles(const Frequencies<Product, kCount>& of, std::int64_t first) {
  for (std::int64_t i = 0; i < kCount * of.panels; ++i) {
    typename Product::Unit* units = of.units + i * of.frequency_units();
    for (std::int64_t j = first * of.kWidth / of.kPack; j < of.frequency_units(); ++j) units[j] = 0;
  }
}

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
