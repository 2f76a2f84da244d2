// The backward of norm_act: one pass that sums over every unit, then one that writes the gradients.
#pragma once

#include "border.h"
#include "norm_act_kernel.h"

namespace torchp2p {
namespace TORCHP2P_ISA {
namespace {

template <class T, bool kUniform> class Backward : public KernelBase<T, kUniform> {
  using Base = KernelBase<T, kUniform>;
  using A = typename Base::A;

 public:
  Backward(const NormActBackward& p, const Plan& plan)
      : Base(p.shape, plan), p_(p),
        grad_(p.grad_y, p.grad_y_stride, plan.h + 2 * plan.pad, plan.w + 2 * plan.pad, plan.cell),
        x_(p.x, p.x_stride, plan.h, plan.w, plan.cell),
        residual_(p.residual, p.residual_stride, plan.h, plan.w, plan.cell),
        packed_grad_(plan.threads, grad_.buffer_size()), packed_x_(plan.threads, x_.buffer_size()),
        packed_residual_(plan.threads, residual_.buffer_size()),
        folded_(plan.threads, plan.pad > 0 ? (plan.w + 2 * plan.pad) * plan.cell : 0),
        unit_sums_(p.grad_weight || p.grad_bias ? plan.units : 0, 2 * plan.cell) {}

  bool ok() const {
    return Base::ok() && packed_grad_.ok() && packed_x_.ok() && packed_residual_.ok() && folded_.ok() &&
           unit_sums_.ok();
  }
  bool moves() const { return this->shape_.statistics == Statistics::kOwn; }  // the statistics, with x
  bool reduces() const { return moves() || p_.grad_weight || p_.grad_bias; }

  void begin(std::int64_t unit, std::int64_t slot) {
    this->clear(this->totals_.piece(slot));
    const Coefficients<A> k = this->coefficients(slot);
    const A *mean = static_cast<const A*>(p_.mean), *var = static_cast<const A*>(p_.var);
    for (std::int64_t i = 0; i < this->plan_.cell; ++i) {
      const std::int64_t s = this->statistic(unit, i);
      this->set_statistic(i, mean ? mean[s] : A(0), var ? var[s] : A(1), k);
    }
    this->set_affine(unit, p_.weight, p_.bias, k);
  }

  // partial: sum of g', then of g' * xhat, of every channel over the chunk.
  void reduce(const Plan::Chunk& chunk, std::int64_t slot, std::int64_t partial, int thread) {
    const std::int64_t cell = this->plan_.cell;
    double* out = this->partials_.piece(partial);
    this->clear(out);
    Sums<A, kUniform> sums = this->sums(thread);
    const auto flush = [&] {
      for (std::int64_t i = 0; i < cell; ++i) {
        out[i] += sums.first(i);
        out[i + cell] += sums.second(i);
      }
      sums.clear();
    };
    sums.clear();
    std::int64_t pending = 0;
    const Coefficients<A> k = this->coefficients(slot);
    for_each_segment(chunk, thread,
                     [&](const auto* g, const T* x, const T* residual, std::int64_t length, std::int64_t) {
      for (std::int64_t i = 0; i < length; i += this->block_) {
        const std::int64_t size = length - i < this->block_ ? length - i : this->block_;
        with_activation(this->shape_.act, [&](auto act) {
          accumulate<act.value>(g + i, x + i, residual ? residual + i : nullptr, size, k, sums);
        });
        pending += size;
        if (pending >= this->block_) {
          flush();
          pending = 0;
        }
      }
    });
    flush();
  }

  void merge(std::int64_t slot, std::int64_t partial, std::int64_t) {
    double* total = this->totals_.piece(slot);
    const double* part = this->partials_.piece(partial);
    for (std::int64_t i = 0; i < 2 * this->plan_.cell; ++i) total[i] += part[i];
  }

  void finish(std::int64_t unit, std::int64_t slot) {
    const std::int64_t cell = this->plan_.cell;
    const Coefficients<A> k = this->coefficients(slot);
    const double* total = this->totals_.piece(slot);
    const double share = moves() ? 1 / this->values_per_unit() : 0;
    for (std::int64_t i = 0; i < cell; ++i) {
      k.mean_g[i] = static_cast<A>(total[i] * share);
      k.mean_gx[i] = static_cast<A>(total[i + cell] * share);
    }
    this->fill_period(k.mean_g);
    this->fill_period(k.mean_gx);
    if (p_.grad_weight || p_.grad_bias) {
      for (std::int64_t i = 0; i < 2 * cell; ++i) unit_sums_.piece(unit)[i] = total[i];
    }
  }

  void apply(const Plan::Chunk& chunk, std::int64_t slot, int thread) {
    const Coefficients<A> k = this->coefficients(slot);
    for_each_segment(chunk, thread,
                     [&](const auto* g, const T* x, const T* residual, std::int64_t length, std::int64_t r) {
      T* grad_x = dense_row(p_.grad_x, chunk, r);
      T* grad_residual = p_.grad_residual ? dense_row(p_.grad_residual, chunk, r) : nullptr;
      with_activation(this->shape_.act,
                      [&](auto act) { differentiate<act.value>(g, x, residual, grad_x, grad_residual, length, k); });
    });
    finish_past_cache();
  }

  // Gradients of weight and bias, summed over the units in their order. False if there is no memory.
  bool write_affine_gradients() const {
    const std::int64_t c = this->plan_.c, cell = this->plan_.cell;
    const Buffer<double> sums(2, c);
    if (!sums.ok()) return false;
    for (std::int64_t i = 0; i < c; ++i) sums.piece(0)[i] = sums.piece(1)[i] = 0;
    for (std::int64_t unit = 0; unit < this->plan_.units; ++unit) {
      for (std::int64_t i = 0; i < cell; ++i) {
        sums.piece(0)[this->channel(unit, i)] += unit_sums_.piece(unit)[i];
        sums.piece(1)[this->channel(unit, i)] += unit_sums_.piece(unit)[i + cell];
      }
    }
    for (std::int64_t i = 0; i < c; ++i) {
      if (p_.grad_bias) static_cast<A*>(p_.grad_bias)[i] = static_cast<A>(sums.piece(0)[i]);
      if (p_.grad_weight) static_cast<A*>(p_.grad_weight)[i] = static_cast<A>(sums.piece(1)[i]);
    }
    return true;
  }

 private:
  // body(gradient, x, residual, length, first row) for the chunk, in as few pieces as the layouts allow. With a
  // border the gradient comes folded, in the accumulator type.
  template <class Body> void for_each_segment(const Plan::Chunk& chunk, int thread, const Body& body) const {
    const Plan& plan = this->plan_;
    const bool joined = plan.pad == 0 && grad_.joined() && x_.joined() && residual_.joined();
    const std::int64_t step = joined ? chunk.rows() : 1, length = step * plan.row;
    for (std::int64_t r = chunk.row_begin; r < chunk.row_end; r += step) {
      const T* x = x_.row(chunk.n, chunk.c, r, packed_x_.piece(thread));
      const T* residual = residual_.row(chunk.n, chunk.c, r, packed_residual_.piece(thread));
      if (plan.pad > 0) {
        body(folded_row(chunk, r, thread), x, residual, length, r);
      } else {
        body(grad_.row(chunk.n, chunk.c, r, packed_grad_.piece(thread)), x, residual, length, r);
      }
    }
  }

  // Row r of the gradient plus what the border holds of it: border rows first, then the two ends.
  const A* folded_row(const Plan::Chunk& chunk, std::int64_t r, int thread) const {
    const Plan& plan = this->plan_;
    const std::int64_t pad = plan.pad, cell = plan.cell, length = (plan.w + 2 * pad) * cell;
    A* wide = folded_.piece(thread);
    const auto add_row = [&](std::int64_t row, auto first) {
      const T* g = grad_.row(chunk.n, chunk.c, row, packed_grad_.piece(thread));
      sweep<A, true>(length, this->period_, [&](std::int64_t i, std::int64_t, auto extent) {
        const Vec<A> v = get(g + i, extent, Vec<A>{});
        put(wide + i, first.value ? v : v + get(wide + i, extent, Vec<A>{}), extent);
      });
    };
    add_row(r + pad, std::true_type{});
    for_each_repeat(r, plan.h, pad, this->shape_.pad_mode, [&](std::int64_t d) { add_row(d, std::false_type{}); });
    for_each_near_border(plan.w, pad, [&](std::int64_t w) {
      for_each_repeat(w, plan.w, pad, this->shape_.pad_mode, [&](std::int64_t d) {
        for (std::int64_t i = 0; i < cell; ++i) wide[(pad + w) * cell + i] += wide[d * cell + i];
      });
    });
    return wide + pad * cell;
  }

  template <Activation kAct, class G>
  void accumulate(const G* g, const T* x, const T* residual, std::int64_t length, const Coefficients<A>& k,
                  Sums<A, kUniform>& sums) const {
    const Coefficient<A, kUniform> mean(k.mean), rstd(k.rstd), weight(k.weight), bias(k.bias);
    const Vec<A> slope = broadcast(static_cast<A>(this->shape_.slope));
    sums.add(length, [&](std::int64_t i, std::int64_t j, Vec<A>& first, Vec<A>& second, auto extent) {
      const Vec<A> xhat = (get(x + i, extent, mean.at(j)) - mean.at(j)) * rstd.at(j);
      Vec<A> z = xhat * weight.at(j) + bias.at(j);
      if (residual != nullptr) z += get(residual + i, extent, Vec<A>{});
      const Vec<A> gz = through_activation<kAct, A>(get(g + i, extent, Vec<A>{}), z, slope);
      first += gz;
      second += gz * xhat;
    });
  }

  template <Activation kAct, class G>
  void differentiate(const G* g, const T* x, const T* residual, T* grad_x, T* grad_residual, std::int64_t length,
                     const Coefficients<A>& k) const {
    const Coefficient<A, kUniform> mean(k.mean), rstd(k.rstd), weight(k.weight), bias(k.bias), mean_g(k.mean_g),
        mean_gx(k.mean_gx), factor(k.factor);
    const Vec<A> slope = broadcast(static_cast<A>(this->shape_.slope));
    const bool moving = moves();
    const auto store = this->store_to(grad_x, length);
    const auto body = [&](std::int64_t i, std::int64_t j, auto extent) {
      const Vec<A> xhat = (get(x + i, extent, Vec<A>{}) - mean.at(j)) * rstd.at(j);
      Vec<A> z = xhat * weight.at(j) + bias.at(j);
      if (residual != nullptr) z += get(residual + i, extent, Vec<A>{});
      const Vec<A> gz = through_activation<kAct, A>(get(g + i, extent, Vec<A>{}), z, slope);
      if (grad_residual != nullptr) put(grad_residual + i, gz, extent);
      // Statistics that do not move with x take nothing away; 0 * xhat would, where x is not finite.
      const Vec<A> gh = moving ? gz - mean_g.at(j) - xhat * mean_gx.at(j) : gz;
      put(grad_x + i, gh * factor.at(j), extent, store.past_cache);
    };
    sweep<A, kUniform>(length, this->period_, body, store.lead);
  }

  T* dense_row(void* base, const Plan::Chunk& chunk, std::int64_t r) const {
    const Plan& plan = this->plan_;
    const std::int64_t plane = plan.channels_last ? chunk.n : chunk.n * plan.c + chunk.c;
    return static_cast<T*>(base) + (plane * plan.h + r) * plan.row;
  }

  const NormActBackward& p_;
  const Rows<T> grad_, x_, residual_;
  const Buffer<T> packed_grad_, packed_x_, packed_residual_;
  const Buffer<A> folded_;
  const Buffer<double> unit_sums_;
};

}  // namespace
}  // namespace TORCHP2P_ISA
}  // namespace torchp2p
