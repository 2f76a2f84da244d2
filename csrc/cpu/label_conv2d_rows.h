// The rows that label_conv2d reads, prepared once per call: padded in width, labels as class numbers with the end
// of each run of equal ones, dense channels beside them. Height is padded by pointing to rows again.
#pragma once

#include "border.h"
#include "buffer.h"
#include "parallel.h"
#include "torchp2p/label_conv2d.h"

namespace torchp2p {
namespace TORCHP2P_ISA {

// Position p of a padded row or column in [0, size + 2 pad) comes from this place in [0, size); -1 from nowhere.
inline std::int64_t source_of(std::int64_t p, std::int64_t size, std::int64_t pad, PadMode mode) {
  const std::int64_t i = p - pad;
  if (i >= 0 && i < size) return i;
  if (mode == PadMode::kReflect) return i < 0 ? -i : 2 * (size - 1) - i;
  if (mode == PadMode::kReplicate) return i < 0 ? 0 : size - 1;
  return -1;
}

// body(a null pointer to the C++ type of the labels).
template <class Body> inline void with_label_type(LabelType type, const Body& body) {
  switch (type) {
    case LabelType::kUInt8: return body(static_cast<const std::uint8_t*>(nullptr));
    case LabelType::kInt8: return body(static_cast<const std::int8_t*>(nullptr));
    case LabelType::kUInt16: return body(static_cast<const std::uint16_t*>(nullptr));
    case LabelType::kInt16: return body(static_cast<const std::int16_t*>(nullptr));
    case LabelType::kUInt32: return body(static_cast<const std::uint32_t*>(nullptr));
    case LabelType::kInt32: return body(static_cast<const std::int32_t*>(nullptr));
    case LabelType::kUInt64: return body(static_cast<const std::uint64_t*>(nullptr));
    case LabelType::kInt64: return body(static_cast<const std::int64_t*>(nullptr));
  }
}

template <class A> class InputRows {
 public:
  InputRows(const LabelConv2dShape& shape, const LabelConv2dInput& input)
      : s_(shape), in_(input), width_(shape.w + 2 * shape.pad_w), rows_(shape.n * shape.h), columns_(1, width_),
        classes_(rows_ + 1, width_), ends_(rows_ + 1, width_), dense_(rows_ + 1, shape.dense_channels * width_),
        bad_(1, rows_), present_(1, shape.classes) {}

  bool ok() const { return columns_.ok() && classes_.ok() && ends_.ok() && dense_.ok() && bad_.ok() && present_.ok(); }

  // Reads everything. Returns the flat index of the first id out of range, or -1.
  std::int64_t prepare() {
    for (std::int64_t x = 0; x < width_; ++x) columns_.piece(0)[x] = source_of(x, s_.w, s_.pad_w, s_.pad_mode);
    parallel_for(rows_, thread_count(rows_ * width_), [&](std::int64_t row, int) {
      with_label_type(s_.label_type, [&](auto type) { bad_.piece(0)[row] = read_labels(row, type); });
      find_ends(row);
      for (std::int64_t d = 0; d < s_.dense_channels; ++d) read_dense(row, d);
    });
    for (std::int64_t x = 0; x < width_; ++x) classes_.piece(rows_)[x] = static_cast<std::int32_t>(s_.classes);
    find_ends(rows_);
    for (std::int64_t i = 0; i < s_.dense_channels * width_; ++i) dense_.piece(rows_)[i] = 0;
    find_present();
    for (std::int64_t row = 0; row < rows_; ++row) {
      if (bad_.piece(0)[row] >= 0) return row * s_.w + bad_.piece(0)[row];
    }
    return -1;
  }

  std::int64_t width() const { return width_; }
  // Whether any pixel has this id.
  bool present(std::int64_t id) const { return present_.piece(0)[id]; }

  // The place among all rows of padded row y of sample n.
  std::int64_t row(std::int64_t n, std::int64_t y) const {
    const std::int64_t source = source_of(y, s_.h, s_.pad_h, s_.pad_mode);
    return source < 0 ? rows_ : n * s_.h + source;
  }
  // An id out of range and a border of zeros are class number `classes`.
  const std::int32_t* classes(std::int64_t row) const { return classes_.piece(row); }
  // Where the run that covers a position ends: the first position with another class.
  const std::int32_t* ends(std::int64_t row) const { return ends_.piece(row); }
  const A* dense(std::int64_t row, std::int64_t d) const { return dense_.piece(row) + d * width_; }

 private:
  template <class L> std::int64_t read_labels(std::int64_t row, const L*) const {
    const L* labels =
        static_cast<const L*>(in_.labels) + row / s_.h * in_.label_stride.n + row % s_.h * in_.label_stride.h;
    std::int32_t* out = classes_.piece(row);
    std::int64_t bad = -1;
    for (std::int64_t x = s_.w - 1; x >= 0; --x) {
      const auto id = static_cast<std::uint64_t>(labels[x * in_.label_stride.w]);  // a negative one becomes huge
      const bool inside = id < static_cast<std::uint64_t>(s_.classes);
      out[s_.pad_w + x] = static_cast<std::int32_t>(inside ? static_cast<std::int64_t>(id) : s_.classes);
      if (!inside) bad = x;
    }
    fill_border(out, static_cast<std::int32_t>(s_.classes));
    return bad;
  }

  void read_dense(std::int64_t row, std::int64_t d) const {
    const A* from = static_cast<const A*>(in_.dense) + row / s_.h * in_.dense_stride.n + d * in_.dense_stride.c +
                    row % s_.h * in_.dense_stride.h;
    A* out = dense_.piece(row) + d * width_;
    for (std::int64_t x = 0; x < s_.w; ++x) out[s_.pad_w + x] = from[x * in_.dense_stride.w];
    fill_border(out, A(0));
  }

  template <class V> void fill_border(V* row, V nothing) const {
    const std::int64_t* from = columns_.piece(0);
    const auto fill = [&](std::int64_t x) { row[x] = from[x] < 0 ? nothing : row[s_.pad_w + from[x]]; };
    for (std::int64_t x = 0; x < s_.pad_w; ++x) {
      fill(x);
      fill(s_.pad_w + s_.w + x);
    }
  }

  void find_ends(std::int64_t row) const {
    const std::int32_t* classes = classes_.piece(row);
    std::int32_t* ends = ends_.piece(row);
    std::int32_t end = static_cast<std::int32_t>(width_);
    for (std::int64_t x = width_ - 1; x >= 0; --x) {
      if (x + 1 < width_ && classes[x] != classes[x + 1]) end = static_cast<std::int32_t>(x + 1);
      ends[x] = end;
    }
  }

  void find_present() const {
    bool* present = present_.piece(0);
    for (std::int64_t id = 0; id < s_.classes; ++id) present[id] = false;
    for (std::int64_t row = 0; row < rows_; ++row) {
      for (std::int64_t x = 0; x < width_; x = ends(row)[x]) {
        if (classes(row)[x] < s_.classes) present[classes(row)[x]] = true;
      }
    }
  }

  const LabelConv2dShape& s_;
  const LabelConv2dInput& in_;
  const std::int64_t width_, rows_;
  const Buffer<std::int64_t> columns_;
  const Buffer<std::int32_t> classes_, ends_;
  const Buffer<A> dense_;
  const Buffer<std::int64_t> bad_;
  const Buffer<bool> present_;
};

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
