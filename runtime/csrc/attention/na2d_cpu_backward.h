// The gradient of two-dimensional neighbourhood attention on the CPU (na2d_cpu.h).
//
// The work is cut in units (sample, head, strip of rows). A unit computes the gradients of the queries, keys and values
// of its strip, for which it also meets the queries beside it whose windows reach into it: so each gradient is computed
// by one unit, in an order that depends on the problem alone, and the number of threads changes no bit. What each unit
// found for the biases is added up in the units' order.
#pragma once

#include "na2d_cpu.h"

namespace polc::na2d {

struct BackwardProblem {
  Problem problem;          // without its outputs
  const float* out;         // what `forward` wrote
  const float* statistics;  // what `forward` wrote
  const float* grad;        // of out
  float* q_grad;
  float* k_grad;
  float* v_grad;
  float* rpb_grad;  // null where problem.rpb is
};

// The first and the last query along an axis that attend to a key.
inline int64_t first_query(int64_t key, int64_t length, int64_t kernel) {
  const int64_t size = window_size(length, kernel);
  return key < size ? 0 : key - size + 1 + kernel / 2;
}

inline int64_t last_query(int64_t key, int64_t length, int64_t kernel) {
  const int64_t last_start = length - window_size(length, kernel);
  return key >= last_start ? length - 1 : key + kernel / 2;
}

// One head of one sample, and the rows whose gradients are computed.
struct BackwardUnit {
  int64_t sample, head;
  int64_t row_begin, row_end;
};

// How a problem is cut in units: in strips only where there are few samples and heads.
class BackwardCut {
 public:
  explicit BackwardCut(const Problem& p) : p_(p) {
    if (p.batch * p.height * p.width * p.heads * p.dim == 0) return;
    const int64_t wanted = (kEnoughUnits + p.batch * p.heads - 1) / (p.batch * p.heads);
    const int64_t most = std::max<int64_t>(p.height / std::max(kLeastRows, 2 * p.kernel), 1);
    strips_ = std::min(wanted, most);
    rows_ = (p.height + strips_ - 1) / strips_;
    strips_ = (p.height + rows_ - 1) / rows_;
  }

  int64_t count() const { return p_.batch * p_.heads * strips_; }

  BackwardUnit unit(int64_t index) const {
    const int64_t row = index % strips_ * rows_;
    index /= strips_;
    return {index / p_.heads, index % p_.heads, row, std::min(row + rows_, p_.height)};
  }

  // Adds up, in the units' order, what they found for the biases: sums [units][size] -> [heads][size].
  void add_up(const float* sums, int64_t size, float* to) const {
    std::fill(to, to + p_.heads * size, 0.0f);
    for (int64_t index = 0; index < count(); ++index) {
      float* total = to + unit(index).head * size;
      for (int64_t i = 0; i < size; ++i) total[i] += sums[index * size + i];
    }
  }

 private:
  static constexpr int64_t kEnoughUnits = 16;
  static constexpr int64_t kLeastRows = 16;

  const Problem& p_;
  int64_t rows_ = 0, strips_ = 0;
};

#if defined(__clang__)
#define POLC_UNROLL _Pragma("unroll")
#else
#define POLC_UNROLL _Pragma("GCC unroll 16")
#endif

#define POLC_TARGET
namespace baseline {
#include "na2d_cpu_backward.inc"
}  // namespace baseline
#undef POLC_TARGET

#if defined(__x86_64__)
#define POLC_TARGET POLC_TARGET_AVX2
namespace avx2 {
#include "na2d_cpu_backward.inc"
}  // namespace avx2
#undef POLC_TARGET

#define POLC_TARGET POLC_TARGET_AVX512
namespace avx512 {
#include "na2d_cpu_backward.inc"
}  // namespace avx512
#undef POLC_TARGET
#endif
#undef POLC_UNROLL

// The gradient's kernel for one instruction set.
struct BackwardImplementation {
  int64_t lanes;
  size_t (*scratch_floats)(const Problem& problem);
  void (*run)(const BackwardProblem& problem, const BackwardUnit& unit, float* scratch, float* bias_sums);
};

// The one that goes with a forward kernel; where rows are narrow, one with fewer lanes, of which fewer idle.
inline BackwardImplementation backward_implementation(const Problem& problem, const Implementation& chosen) {
#if defined(__x86_64__)
  const BackwardImplementation wide{avx512::kLanes, &avx512::backward_scratch_floats, &avx512::run_backward};
  const BackwardImplementation narrow{avx2::kLanes, &avx2::backward_scratch_floats, &avx2::run_backward};
  if (std::strcmp(chosen.name, "avx512") == 0) return problem.width > narrow.lanes ? wide : narrow;
  if (std::strcmp(chosen.name, "avx2") == 0) return narrow;
#endif
  (void)problem, (void)chosen;
  return {baseline::kLanes, &baseline::backward_scratch_floats, &baseline::run_backward};
}

// Computes the gradients of q, k, v and, if wanted, rpb. parallel_for, errors and checks as for `forward`.
template <class ParallelFor>
void backward(const BackwardProblem& problem, ParallelFor&& parallel_for,
              const Implementation& chosen = implementation()) {
  const Problem& p = problem.problem;
  const BackwardCut cut(p);
  const int64_t biases = problem.rpb_grad == nullptr ? 0 : (2 * p.kernel - 1) * (2 * p.kernel - 1);
  std::vector<float> bias_sums(static_cast<size_t>(cut.count() * biases));
  if (cut.count() > 0) {
    const BackwardImplementation kernel = backward_implementation(p, chosen);
    run_units(cut.count(), kernel.scratch_floats(p), parallel_for, [&](int64_t index, float* scratch) {
      kernel.run(problem, cut.unit(index), scratch, bias_sums.data() + index * biases);
    });
  }
  if (problem.rpb_grad != nullptr) cut.add_up(bias_sums.data(), biases, problem.rpb_grad);
}

}  // namespace polc::na2d
