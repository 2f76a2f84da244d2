// The forward of norm_act: statistics of every unit, then one pass that writes the result and its border.
#pragma once

#include "border.h"
#include "norm_act_kernel.h"

namespace torchp2p {
namespace TORCHP2P_ISA {
namespace {

template <class T, bool kUniform> class Forward : public KernelBase<T, kUniform> {
  using Base = KernelBase<T, kUniform>;
  using A = typename Base::A;

 public:
  Forward(const NormActForward& p, const Plan& plan)
      : Base(p.shape, plan), p_(p), x_(p.x, p.x_stride, plan.h, plan.w, plan.cell),
        residual_(p.residual, p.residual_stride, plan.h, plan.w, plan.cell), packed_x_(plan.threads, x_.buffer_size()),
        packed_residual_(plan.threads, residual_.buffer_size()) {}

  bool ok() const { return Base::ok() && packed_x_.ok() && packed_residual_.ok(); }
  bool reduces() const { return this->shape_.statistics == Statistics::kTaken; }
  void begin(std::int64_t, std::int64_t slot) { this->clear(this->totals_.piece(slot)); }

  // partial: mean, then M2, of every channel over the chunk.
  void reduce(const Plan::Chunk& chunk, std::int64_t, std::int64_t partial, int thread) {
    double* mean = this->partials_.piece(partial);
    double* m2 = mean + this->plan_.cell;
    this->clear(mean);
    const std::int64_t step = x_.joined() ? chunk.rows() : 1, length = step * this->plan_.row;
    double seen = 0;
    for (std::int64_t r = chunk.row_begin; r < chunk.row_end; r += step) {
      const T* x = x_.row(chunk.n, chunk.c, r, packed_x_.piece(thread));
      for (std::int64_t i = 0; i < length; i += this->block_) {
        const std::int64_t size = length - i < this->block_ ? length - i : this->block_;
        add_block(x + i, size, mean, m2, seen, thread);
        seen += static_cast<double>(size / this->plan_.cell);
      }
    }
  }

  void merge(std::int64_t slot, std::int64_t partial, std::int64_t index) {
    double* total = this->totals_.piece(slot);
    const double* part = this->partials_.piece(partial);
    const double seen = this->values_before(index), fresh = this->values(index);
    for (std::int64_t i = 0; i < this->plan_.cell; ++i) {
      merge_moments(total[i], total[i + this->plan_.cell], seen, part[i], part[i + this->plan_.cell], fresh);
    }
  }

  void finish(std::int64_t unit, std::int64_t slot) {
    const Coefficients<A> k = this->coefficients(slot);
    const double* total = this->totals_.piece(slot);
    A *mean = static_cast<A*>(p_.mean), *var = static_cast<A*>(p_.var);
    for (std::int64_t i = 0; i < this->plan_.cell; ++i) {
      const std::int64_t s = this->statistic(unit, i);
      if (reduces()) {
        const double variance = total[i + this->plan_.cell] / this->values_per_unit();
        mean[s] = static_cast<A>(total[i]);
        var[s] = static_cast<A>(variance);
        this->set_statistic(i, total[i], variance, k);
      } else {
        this->set_statistic(i, mean ? mean[s] : A(0), var ? var[s] : A(1), k);
      }
    }
    this->set_affine(unit, p_.weight, p_.bias, k);
  }

  void apply(const Plan::Chunk& chunk, std::int64_t slot, int thread) {
    const Plan& plan = this->plan_;
    const bool joined = plan.pad == 0 && x_.joined() && residual_.joined();
    const std::int64_t step = joined ? chunk.rows() : 1, length = step * plan.row;
    const Coefficients<A> k = this->coefficients(slot);
    for (std::int64_t r = chunk.row_begin; r < chunk.row_end; r += step) {
      const T* x = x_.row(chunk.n, chunk.c, r, packed_x_.piece(thread));
      const T* residual = residual_.row(chunk.n, chunk.c, r, packed_residual_.piece(thread));
      T* y = y_row(chunk, r + plan.pad) + plan.pad * plan.cell;
      with_activation(this->shape_.act, [&](auto act) { transform<act.value>(x, residual, y, length, k); });
      if (plan.pad > 0) write_border(chunk, r);
    }
    finish_past_cache();
  }

 private:
  // Moments of one block that stays in L1, merged into (mean, m2), which cover `seen` values per channel.
  void add_block(const T* x, std::int64_t size, double* mean, double* m2, double seen, int thread) {
    const std::int64_t cell = this->plan_.cell;
    const double fresh = static_cast<double>(size / cell);
    Sums<A, kUniform> sums = this->sums(thread);
    sums.clear();
    sums.add(size, [&](std::int64_t i, std::int64_t, Vec<A>& first, Vec<A>&, auto extent) {
      first += get(x + i, extent, Vec<A>{});
    });
    // The block's mean, rounded: deviations from it are summed too, which makes up for the rounding.
    A* centre = this->coefficients(thread).mean_g;
    for (std::int64_t i = 0; i < cell; ++i) centre[i] = static_cast<A>(sums.first(i) / fresh);
    this->fill_period(centre);
    const Coefficient<A, kUniform> shift(centre);
    sums.clear();
    sums.add(size, [&](std::int64_t i, std::int64_t slot, Vec<A>& first, Vec<A>& second, auto extent) {
      const Vec<A> s = shift.at(slot), d = get(x + i, extent, s) - s;
      first += d;
      second += d * d;
    });
    for (std::int64_t i = 0; i < cell; ++i) {
      const double off = sums.first(i) / fresh;
      merge_moments(mean[i], m2[i], seen, centre[i] + off, sums.second(i) - off * off * fresh, fresh);
    }
  }

  static void merge_moments(double& mean, double& m2, double seen, double mean_b, double m2_b, double fresh) {
    const double delta = mean_b - mean, all = seen + fresh;
    mean += delta * (fresh / all);
    m2 += m2_b + delta * delta * (seen * fresh / all);
  }

  template <Activation kAct>
  void transform(const T* x, const T* residual, T* y, std::int64_t length, const Coefficients<A>& k) const {
    const Coefficient<A, kUniform> mean(k.mean), scale(k.factor), shift(k.bias);
    const Vec<A> slope = broadcast(static_cast<A>(this->shape_.slope));
    const auto store = this->store_to(y, length);
    const auto body = [&](std::int64_t i, std::int64_t j, auto extent) {
      Vec<A> z = (get(x + i, extent, Vec<A>{}) - mean.at(j)) * scale.at(j) + shift.at(j);
      if (residual != nullptr) z += get(residual + i, extent, Vec<A>{});
      put(y + i, activate<kAct, A>(z, slope), extent, store.past_cache);
    };
    sweep<A, kUniform>(length, this->period_, body, store.lead);
  }

  T* y_row(const Plan::Chunk& chunk, std::int64_t row) const {
    const Plan& plan = this->plan_;
    const std::int64_t plane = plan.channels_last ? chunk.n : chunk.n * plan.c + chunk.c;
    return static_cast<T*>(p_.y) + (plane * (plan.h + 2 * plan.pad) + row) * padded_row();
  }
  std::int64_t padded_row() const { return (this->plan_.w + 2 * this->plan_.pad) * this->plan_.cell; }

  // Row r stands in its place: fill its two ends, then copy it to the border rows that repeat it.
  void write_border(const Plan::Chunk& chunk, std::int64_t r) const {
    const Plan& plan = this->plan_;
    const std::int64_t pad = plan.pad, cell = plan.cell;
    T* y = y_row(chunk, r + pad);
    const std::size_t row_bytes = static_cast<std::size_t>(padded_row()) * sizeof(T);
    if (this->shape_.pad_mode == PadMode::kZeros) {
      const std::size_t end_bytes = static_cast<std::size_t>(pad * cell) * sizeof(T);
      std::memset(static_cast<void*>(y), 0, end_bytes);
      std::memset(static_cast<void*>(y + (pad + plan.w) * cell), 0, end_bytes);
      for (std::int64_t d = 0; d < pad; ++d) {
        if (r == 0) std::memset(static_cast<void*>(y_row(chunk, d)), 0, row_bytes);
        if (r == plan.h - 1) std::memset(static_cast<void*>(y_row(chunk, pad + plan.h + d)), 0, row_bytes);
      }
      return;
    }
    for_each_near_border(plan.w, pad, [&](std::int64_t w) {
      for_each_repeat(w, plan.w, pad, this->shape_.pad_mode, [&](std::int64_t d) {
        for (std::int64_t i = 0; i < cell; ++i) y[d * cell + i] = y[(pad + w) * cell + i];
      });
    });
    for_each_repeat(r, plan.h, pad, this->shape_.pad_mode,
                    [&](std::int64_t d) { std::memcpy(static_cast<void*>(y_row(chunk, d)), y, row_bytes); });
  }

  const NormActForward& p_;
  const Rows<T> x_, residual_;
  const Buffer<T> packed_x_, packed_residual_;
};

}  // namespace
}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
