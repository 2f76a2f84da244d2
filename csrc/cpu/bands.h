// Images cut into bands of whole rows: by their shape alone, so that what is computed does not depend on how many
// threads share the bands.
#pragma once

#include <cstdint>

namespace torchp2p {
namespace TORCHP2P_ISA {

struct Band {
  std::int64_t n, begin, end;  // rows [begin, end) of sample n
  std::int64_t rows() const { return end - begin; }
};

class Bands {
 public:
  Bands(std::int64_t n, std::int64_t h, std::int64_t w) : h_(h), rows_(w < kPixels ? kPixels / w : 1) {
    if (rows_ > h) rows_ = h;
    per_sample = (h + rows_ - 1) / rows_;
    count = n * per_sample;
    most_pixels = rows_ * w;
  }

  Band operator[](std::int64_t i) const {
    const std::int64_t begin = i % per_sample * rows_;
    return {i / per_sample, begin, begin + rows_ < h_ ? begin + rows_ : h_};
  }

  std::int64_t count, per_sample, most_pixels;

 private:
  static constexpr std::int64_t kPixels = 8192;

  std::int64_t h_, rows_;
};

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
