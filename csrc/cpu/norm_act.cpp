// norm_act on the CPU.
//
// Forward:  per chunk, mean and M2 of blocks that stay in L1 (two passes: mean, then squared deviations), merged
//           in double (Chan et al.); then one pass y = act((x - mean) * scale + shift + residual), written to
//           its place in the padded result and to the border places that repeat it.
// Backward: one pass sums g' and g' * xhat (g' = folded gradient through the activation), one writes
//           grad_x = scale * (g' - mean(g') - xhat * mean(g' * xhat)).
// Memory:   forward reads x twice (the second time from cache where a plane fits) and writes y; backward reads
//           grad_y and x twice and writes grad_x. Nothing else is kept between them than mean and variance.
// Parallel: see norm_act_plan.h.

#include <cmath>
#include <initializer_list>
#include <type_traits>

#include "border.h"
#include "isa.h"
#include "norm_act_plan.h"
#include "vmath.h"

namespace torchp2p {
namespace TORCHP2P_ISA {
namespace {

template <Activation kAct, class A> inline Vec<A> activate(Vec<A> z, Vec<A> slope) {
  if constexpr (kAct == Activation::kLeakyRelu) return z > 0 ? z : z * slope;
  if constexpr (kAct == Activation::kRelu) return z < 0 ? Vec<A>{} : z;  // a nan stays
  if constexpr (kAct == Activation::kTanh) return tanh(z);
  return z;
}

template <Activation kAct, class A> inline Vec<A> through_activation(Vec<A> g, Vec<A> z, Vec<A> slope) {
  if constexpr (kAct == Activation::kLeakyRelu) return z > 0 ? g : g * slope;
  if constexpr (kAct == Activation::kRelu) return z <= 0 ? Vec<A>{} : g;
  if constexpr (kAct == Activation::kTanh) {
    const Vec<A> t = tanh(z);
    return g * (1 - t * t);
  }
  return g;
}

template <class Body> inline void with_activation(Activation act, const Body& body) {
  switch (act) {
    case Activation::kLeakyRelu: return body(std::integral_constant<Activation, Activation::kLeakyRelu>{});
    case Activation::kRelu: return body(std::integral_constant<Activation, Activation::kRelu>{});
    case Activation::kTanh: return body(std::integral_constant<Activation, Activation::kTanh>{});
    case Activation::kNone: return body(std::integral_constant<Activation, Activation::kNone>{});
  }
}

// The coefficients of one unit, each repeated over a period: xhat = (x - mean) * rstd, z = xhat * weight + bias,
// and for the gradient the means of g' and g' * xhat and the factor weight * rstd.
template <class A> struct Coefficients {
  A *mean, *rstd, *weight, *bias, *mean_g, *mean_gx, *factor;
  static constexpr int kCount = 7;

  Coefficients(A* memory, std::int64_t period)
      : mean(memory), rstd(memory + period), weight(memory + 2 * period), bias(memory + 3 * period),
        mean_g(memory + 4 * period), mean_gx(memory + 5 * period), factor(memory + 6 * period) {}
};

// What forward and backward share: the statistics and affine parameters of a unit's channels.
template <class T, bool kUniform> class KernelBase {
 public:
  using A = Accumulator<T>;

  KernelBase(const NormActShape& shape, const Plan& plan)
      : shape_(shape), plan_(plan), period_(period_of<A>(plan.cell, kUniform)),
        block_(kUniform ? 4096
                        : period_ * (16384 / period_ < 16   ? 16
                                     : 16384 / period_ > 64 ? 64
                                                            : 16384 / period_)),
        coefficients_(plan.threads, Coefficients<A>::kCount * period_), sums_(plan.threads, 2 * period_),
        totals_(plan.threads, 2 * plan.cell), partials_(plan.partials(), 2 * plan.cell) {}

  bool ok() const { return coefficients_.ok() && sums_.ok() && totals_.ok() && partials_.ok(); }

 protected:
  void clear(double* sums) const {
    for (std::int64_t i = 0; i < 2 * plan_.cell; ++i) sums[i] = 0;
  }

  Coefficients<A> coefficients(std::int64_t slot) const { return {coefficients_.piece(slot), period_}; }
  Sums<A, kUniform> sums(int thread) const { return {sums_.piece(thread), period_, plan_.cell}; }

  // The channel at index k of a unit's channels, and its place among the statistics.
  std::int64_t channel(std::int64_t unit, std::int64_t k) const { return plan_.channels_last ? k : unit % plan_.c; }
  std::int64_t statistic(std::int64_t unit, std::int64_t k) const {
    if (shape_.statistics == Statistics::kGiven) return channel(unit, k);
    return plan_.channels_last ? unit * plan_.c + k : unit;
  }

  // Values per channel in a chunk, in the chunks before it, and in a unit.
  double values(std::int64_t index) const { return static_cast<double>(plan_.chunk(0, index).rows() * plan_.w); }
  double values_before(std::int64_t index) const {
    const std::int64_t rows = index / plan_.chunks_per_sample * plan_.h + plan_.chunk(0, index).row_begin;
    return static_cast<double>(rows * plan_.w);
  }
  double values_per_unit() const { return static_cast<double>(plan_.samples * plan_.h * plan_.w); }

  // Repeats the first plan.cell values over the period (a uniform coefficient is read from the first alone).
  void fill_period(A* values) const {
    if constexpr (kUniform) return;
    for (std::int64_t i = plan_.cell; i < period_; ++i) values[i] = values[i - plan_.cell];
  }

  void set_statistic(std::int64_t i, double mean, double variance, const Coefficients<A>& k) const {
    const bool none = shape_.statistics == Statistics::kNone;
    k.mean[i] = none ? A(0) : static_cast<A>(mean);
    k.rstd[i] = none ? A(1) : static_cast<A>(1 / std::sqrt(variance + shape_.eps));
  }

  // To be called with the statistics of the unit's channels in place.
  void set_affine(std::int64_t unit, const void* weight, const void* bias, const Coefficients<A>& k) const {
    for (std::int64_t i = 0; i < plan_.cell; ++i) {
      const std::int64_t c = channel(unit, i);
      k.weight[i] = weight ? static_cast<const A*>(weight)[c] : A(1);
      k.bias[i] = bias ? static_cast<const A*>(bias)[c] : A(-0.0);  // the sum that changes nothing, not even -0
      k.factor[i] = k.rstd[i] * k.weight[i];
    }
    for (A* values : {k.mean, k.rstd, k.weight, k.bias, k.factor}) fill_period(values);
  }

  const NormActShape& shape_;
  const Plan& plan_;
  const std::int64_t period_, block_;
  Buffer<A> coefficients_, sums_;
  Buffer<double> totals_, partials_;
};

// ---------------------------------------------------------------------------------------------- forward

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
  }

 private:
  // Moments of one block that stays in L1, merged into (mean, m2), which cover `seen` values per channel.
  void add_block(const T* x, std::int64_t size, double* mean, double* m2, double seen, int thread) {
    const std::int64_t cell = this->plan_.cell;
    const double fresh = static_cast<double>(size / cell);
    Sums<A, kUniform> sums = this->sums(thread);
    sums.clear();
    sums.add([&](Vec<A>* first, Vec<A>*) {
      sweep<A, kUniform>(size, this->period_, [&](std::int64_t i, std::int64_t j, auto extent) {
        first[j] += get(x + i, extent, Vec<A>{});
      });
    });
    // The block's mean, rounded: deviations from it are summed too, which makes up for the rounding.
    A* centre = this->coefficients(thread).mean_g;
    for (std::int64_t i = 0; i < cell; ++i) centre[i] = static_cast<A>(sums.first(i) / fresh);
    this->fill_period(centre);
    const Coefficient<A, kUniform> shift(centre);
    sums.clear();
    sums.add([&](Vec<A>* first, Vec<A>* second) {
      sweep<A, kUniform>(size, this->period_, [&](std::int64_t i, std::int64_t j, auto extent) {
        const Vec<A> s = shift.at(j), d = get(x + i, extent, s) - s;
        first[j] += d;
        second[j] += d * d;
      });
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
    sweep<A, kUniform>(length, this->period_, [&](std::int64_t i, std::int64_t j, auto extent) {
      Vec<A> z = (get(x + i, extent, Vec<A>{}) - mean.at(j)) * scale.at(j) + shift.at(j);
      if (residual != nullptr) z += get(residual + i, extent, Vec<A>{});
      put(y + i, activate<kAct, A>(z, slope), extent);
    });
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

// --------------------------------------------------------------------------------------------- backward

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
    sums.add([&](Vec<A>* first, Vec<A>* second) {
      sweep<A, kUniform>(length, this->period_, [&](std::int64_t i, std::int64_t j, auto extent) {
        const Vec<A> xhat = (get(x + i, extent, mean.at(j)) - mean.at(j)) * rstd.at(j);
        Vec<A> z = xhat * weight.at(j) + bias.at(j);
        if (residual != nullptr) z += get(residual + i, extent, Vec<A>{});
        const Vec<A> gz = through_activation<kAct, A>(get(g + i, extent, Vec<A>{}), z, slope);
        first[j] += gz;
        second[j] += gz * xhat;
      });
    });
  }

  template <Activation kAct, class G>
  void differentiate(const G* g, const T* x, const T* residual, T* grad_x, T* grad_residual, std::int64_t length,
                     const Coefficients<A>& k) const {
    const Coefficient<A, kUniform> mean(k.mean), rstd(k.rstd), weight(k.weight), bias(k.bias), mean_g(k.mean_g),
        mean_gx(k.mean_gx), factor(k.factor);
    const Vec<A> slope = broadcast(static_cast<A>(this->shape_.slope));
    const bool moving = moves();
    sweep<A, kUniform>(length, this->period_, [&](std::int64_t i, std::int64_t j, auto extent) {
      const Vec<A> xhat = (get(x + i, extent, Vec<A>{}) - mean.at(j)) * rstd.at(j);
      Vec<A> z = xhat * weight.at(j) + bias.at(j);
      if (residual != nullptr) z += get(residual + i, extent, Vec<A>{});
      const Vec<A> gz = through_activation<kAct, A>(get(g + i, extent, Vec<A>{}), z, slope);
      if (grad_residual != nullptr) put(grad_residual + i, gz, extent);
      // Statistics that do not move with x take nothing away; 0 * xhat would, where x is not finite.
      const Vec<A> gh = moving ? gz - mean_g.at(j) - xhat * mean_gx.at(j) : gz;
      put(grad_x + i, gh * factor.at(j), extent);
    });
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

// -------------------------------------------------------------------------------------------- selection

bool valid(const NormActShape& s) {
  const bool sizes = s.n > 0 && s.c > 0 && s.h > 0 && s.w > 0 && s.pad >= 0;
  const bool reflects = s.pad_mode != PadMode::kReflect || (s.pad < s.h && s.pad < s.w) || s.pad == 0;
  const bool groups = s.stat_groups > 0 && s.n % s.stat_groups == 0;
  return sizes && reflects && groups;
}

template <template <class, bool> class Kernel, class T, bool kUniform, class Params>
Status run_kernel(const Params& params) {
  const Plan plan(params.shape);
  Kernel<T, kUniform> kernel(params, plan);
  if (!kernel.ok()) return Status::kOutOfMemory;
  run(kernel, plan);
  if constexpr (std::is_same_v<Params, NormActBackward>) {
    if ((params.grad_weight || params.grad_bias) && !kernel.write_affine_gradients()) return Status::kOutOfMemory;
  }
  return Status::kOk;
}

template <template <class, bool> class Kernel, class T, class Params> Status with_layout(const Params& params) {
  const bool uniform = !params.shape.channels_last || params.shape.c == 1;
  return uniform ? run_kernel<Kernel, T, true>(params) : run_kernel<Kernel, T, false>(params);
}

template <template <class, bool> class Kernel, class Params> Status with_dtype(const Params& params) {
  if (!valid(params.shape)) return Status::kBadArgument;
  switch (params.shape.dtype) {
    case DType::kFloat32: return with_layout<Kernel, float>(params);
    case DType::kBFloat16: return with_layout<Kernel, BFloat16>(params);
    case DType::kFloat16: return with_layout<Kernel, Float16>(params);
    case DType::kFloat64: return with_layout<Kernel, double>(params);
  }
  return Status::kBadArgument;
}

}  // namespace

Status norm_act_forward(const NormActForward& params) { return with_dtype<Forward>(params); }
Status norm_act_backward(const NormActBackward& params) { return with_dtype<Backward>(params); }

}  // namespace TORCHP2P_ISA
}  // namespace torchp2p

TORCHP2P_CPU_ENTRY(norm_act_forward, NormActForward)
TORCHP2P_CPU_ENTRY(norm_act_backward, NormActBackward)
