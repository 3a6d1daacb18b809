// The operators as plain C functions on raw pointers, for hosts without a runtime's threads: PyTorch through ctypes
// (polc/attention/native.py).
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

#include "na2d_cpu_backward.h"
#include "visibility.h"

namespace {

using polc::na2d::Problem;

// body(0) .. body(count - 1) on up to `threads` threads, this one among them.
template <class Body>
void fork_join(int64_t count, int64_t threads, const Body& body) {
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t index; (index = next.fetch_add(1)) < count;) body(index);
  };
  std::vector<std::thread> helpers;
  const int64_t wanted = std::min(threads, count) - 1;
  if (wanted > 0) helpers.reserve(static_cast<size_t>(wanted));
  try {
    for (int64_t i = 0; i < wanted; ++i) helpers.emplace_back(work);
  } catch (const std::exception&) {
    // The system gives no more threads: those that started do the work.
  }
  work();
  for (std::thread& helper : helpers) helper.join();
}

// Multiplications of the forward pass.
double multiplications(const Problem& p) {
  const double window = static_cast<double>(polc::na2d::window_size(p.height, p.kernel)) *
                        static_cast<double>(polc::na2d::window_size(p.width, p.kernel));
  const double queries = static_cast<double>(p.batch) * static_cast<double>(p.height) * static_cast<double>(p.width);
  return 2.0 * queries * window * static_cast<double>(p.heads) * static_cast<double>(p.dim);
}

// Checks a problem and calls compute(parallel_for), with a thread for each few hundred microseconds of work, which is
// `work` times the forward pass's. Gives what the functions below return: no exception reaches their callers.
template <class Compute>
int guarded(const Problem& problem, int threads, double work, const Compute& compute) noexcept {
  constexpr double kMultiplicationsPerThread = 1 << 22;
  try {
    if (!polc::na2d::check(problem).empty()) return 1;
    const double worth = std::min(work * multiplications(problem) / kMultiplicationsPerThread, 1e6);
    const int64_t used = std::min<int64_t>(std::max(threads, 1), 1 + static_cast<int64_t>(worth));
    compute([&](int64_t count, const auto& body) { fork_join(count, used, body); });
  } catch (const std::bad_alloc&) {
    return 2;
  } catch (...) {
    return 3;
  }
  return 0;
}

}  // namespace

// Neighbourhood attention; arguments as in polc::na2d::Problem, rpb and statistics may be null. The number of threads
// changes no bit. Returns 0; 1 where the sizes do not make a problem; 2 where memory ran out; 3 where
// something else failed.
POLC_EXPORT int polc_na2d_f32(const float* q, const float* k, const float* v, const float* rpb, float* out,
                              float* statistics, int64_t batch, int64_t height, int64_t width, int64_t heads,
                              int64_t dim, int64_t kernel, float scale, int threads) {
  const Problem problem{q, k, v, rpb, out, batch, height, width, heads, dim, kernel, scale, statistics};
  return guarded(problem, threads, 1.0, [&](const auto& loop) { polc::na2d::forward(problem, loop); });
}

// The gradient of polc_na2d_f32, whose results `out` and `statistics` are; rpb and rpb_grad may be null together.
POLC_EXPORT int polc_na2d_backward_f32(const float* q, const float* k, const float* v, const float* rpb,
                                       const float* out, const float* statistics, const float* grad, float* q_grad,
                                       float* k_grad, float* v_grad, float* rpb_grad, int64_t batch, int64_t height,
                                       int64_t width, int64_t heads, int64_t dim, int64_t kernel, float scale,
                                       int threads) {
  const Problem problem{q, k, v, rpb, nullptr, batch, height, width, heads, dim, kernel, scale};
  const polc::na2d::BackwardProblem backward{problem, out, statistics, grad, q_grad, k_grad, v_grad, rpb_grad};
  return guarded(problem, threads, 2.5, [&](const auto& loop) { polc::na2d::backward(backward, loop); });
}

// The instruction set in use: baseline, avx2 or avx512; empty where memory ran out.
POLC_EXPORT const char* polc_ops_isa() {
  try {
    return polc::na2d::implementation().name;
  } catch (...) {
    return "";
  }
}
