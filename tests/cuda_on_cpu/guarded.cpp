// Buffers between guard pages, and the list of those there are.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "cuda_runtime.h"

namespace cuda_on_cpu {
namespace {

constexpr unsigned char kCanary = 0xff;  // a nan in every floating-point format
const std::size_t kPage = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
const std::size_t kZone = 16 * kPage;  // on either side

std::vector<const Guarded*>& all() {
  static std::vector<const Guarded*> list;
  return list;
}

}  // namespace

Guarded::Guarded(std::size_t bytes, std::size_t offset) : size_(bytes) {
  const std::size_t room = (bytes + offset + 15) / 16 * 16, whole = (room + kPage - 1) / kPage * kPage;
  span_ = whole + 2 * kZone;
  pages_ = static_cast<unsigned char*>(mmap(nullptr, span_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  mprotect(pages_ + kZone, whole, PROT_READ | PROT_WRITE);
  std::memset(pages_ + kZone, kCanary, whole);
  data_ = pages_ + kZone + whole - room + offset;
  all().push_back(this);
}

Guarded::~Guarded() {
  for (auto& other : all())
    if (other == this) other = all().back();
  all().pop_back();
  munmap(pages_, span_);
}

bool Guarded::surrounds(const void* address) const {
  const auto* p = static_cast<const unsigned char*>(address);
  return p >= pages_ && p < pages_ + span_;
}

bool Guarded::intact() const {
  for (const unsigned char* p = pages_ + kZone; p < pages_ + span_ - kZone; ++p)
    if ((p < data_ || p >= data_ + size_) && *p != kCanary) return false;
  return true;
}

const Guarded* near(const void* address) {
  for (const Guarded* one : all())
    if (one->surrounds(address)) return one;
  return nullptr;
}

}  // namespace cuda_on_cpu
