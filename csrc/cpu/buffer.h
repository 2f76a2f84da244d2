// Scratch space: `pieces` arrays of `count` values, each aligned to a cache line so that threads do not share one.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace torchp2p {
namespace TORCHP2P_ISA {

template <class T> class Buffer {
 public:
  Buffer(std::int64_t pieces, std::int64_t count) : stride_((count + kPerLine - 1) / kPerLine * kPerLine) {
    const std::int64_t bytes = pieces * stride_ * static_cast<std::int64_t>(sizeof(T));
    if (bytes > 0) memory_ = static_cast<T*>(std::aligned_alloc(kLine, static_cast<std::size_t>(bytes)));
    ok_ = bytes <= 0 || memory_ != nullptr;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(memory_); }

  bool ok() const { return ok_; }
  T* piece(std::int64_t i) const { return memory_ + i * stride_; }

 private:
  static constexpr std::int64_t kLine = 64, kPerLine = kLine / static_cast<std::int64_t>(sizeof(T));

  std::int64_t stride_;
  T* memory_ = nullptr;
  bool ok_ = true;
};

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
