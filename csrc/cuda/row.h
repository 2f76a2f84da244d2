// Some values that lie side by side: what a thread takes of a row in as few instructions as there are 16 bytes in it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace torchp2p {

template <class T, int kCount> struct Row {
  T values[kCount];
};

namespace row {

// The largest unit that the row is made of.
template <int kBytes> struct UnitOf {
  using type = uint4;
};
template <> struct UnitOf<8> {
  using type = uint2;
};
template <> struct UnitOf<4> {
  using type = unsigned int;
};
template <> struct UnitOf<2> {
  using type = unsigned short;
};

template <class T, int kCount> using Unit = typename UnitOf<int(sizeof(T)) * kCount>::type;

}  // namespace row

// Whether a whole row of kCount values may be loaded from p, or stored there.
template <class T, int kCount> inline __host__ __device__ bool takes_rows(const T* p) {
  return reinterpret_cast<std::uintptr_t>(p) % sizeof(row::Unit<T, kCount>) == 0;
}

template <class T, int kCount> inline __device__ Row<T, kCount> load_row(const T* p) {
  using Unit = row::Unit<T, kCount>;
  union {
    Unit units[sizeof(Row<T, kCount>) / sizeof(Unit)];
    Row<T, kCount> row;
  } all;
#pragma unroll
  for (int i = 0; i < int(sizeof(all.units) / sizeof(Unit)); ++i) all.units[i] = reinterpret_cast<const Unit*>(p)[i];
  return all.row;
}

template <class T, int kCount> inline __device__ void store_row(T* p, const Row<T, kCount>& row) {
  using Unit = row::Unit<T, kCount>;
  union {
    Unit units[sizeof(Row<T, kCount>) / sizeof(Unit)];
    Row<T, kCount> row;
  } all;
  all.row = row;
#pragma unroll
  for (int i = 0; i < int(sizeof(all.units) / sizeof(Unit)); ++i) reinterpret_cast<Unit*>(p)[i] = all.units[i];
}

}  // namespace torchp2p
