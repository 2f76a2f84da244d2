// From ids of any value to small numbers: a hash table with open addressing in memory of the caller's.
#pragma once

#include <cstdint>
#include <cstring>

namespace torchp2p {
namespace TORCHP2P_ISA {

class IdTable {
 public:
  struct Slot {
    std::uint64_t id;
    std::int64_t number;  // negative: the slot is free
  };

  // Slots for that many ids, at least half of them free; a power of two.
  static std::int64_t slots_for(std::int64_t ids) {
    std::int64_t slots = 2;
    while (slots < 2 * ids) slots *= 2;
    return slots;
  }

  // `memory` holds slots_for(ids) of the largest `ids` that clear() will be called with.
  explicit IdTable(Slot* memory) : slots_(memory) {}

  // Empties the table and makes it as large as `ids` different ones need.
  void clear(std::int64_t ids) {
    const std::int64_t slots = slots_for(ids);
    std::memset(static_cast<void*>(slots_), 0xff, static_cast<std::size_t>(slots) * sizeof(Slot));
    last_ = static_cast<std::uint64_t>(slots - 1);
    shift_ = __builtin_clzll(last_);
    room_ = slots / 2;
  }

  // How many different ids fit.
  std::int64_t room() const { return room_; }

  // The number of an id, negative where it is new: the caller then sets it.
  std::int64_t& operator[](std::uint64_t id) const {
    std::uint64_t i = (id * 0x9e3779b97f4a7c15u) >> shift_;  // the upper bits of the product depend on all of id
    while (slots_[i].number >= 0 && slots_[i].id != id) i = (i + 1) & last_;
    slots_[i].id = id;
    return slots_[i].number;
  }

 private:
  Slot* slots_;
  std::uint64_t last_ = 0;
  int shift_ = 0;
  std::int64_t room_ = 0;
};

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
