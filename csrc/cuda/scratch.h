// Scratch memory, which is the caller's, cut into arrays. With null for memory it is only measured.
#pragma once

#include <cstdint>

namespace torchp2p {

class ScratchMemory {
 public:
  explicit ScratchMemory(void* memory) : base_(static_cast<char*>(memory)) {}

  // The next `count` values; every array is aligned for any access.
  template <class T> T* take(std::int64_t count) {
    T* const array = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + bytes_);
    bytes_ += (count * std::int64_t{sizeof(T)} + 255) / 256 * 256;
    return array;
  }

  std::int64_t bytes() const { return bytes_; }

 private:
  char* base_;
  std::int64_t bytes_ = 0;
};

}  // namespace torchp2p
