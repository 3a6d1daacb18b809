// The operators as plain C functions on raw pointers, for hosts without a runtime's threads: PyTorch through ctypes
// (polc/attention/native.py).
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

#include "na2d_cpu.h"
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
    // No more threads to be had: those there are do the work.
  }
  work();
  for (std::thread& helper : helpers) helper.join();
}

// Threads that a problem is worth: one for each few hundred microseconds of work.
int64_t worthwhile_threads(const Problem& p) {
  constexpr double kMultiplicationsPerThread = 1 << 22;
  const double window = static_cast<double>(polc::na2d::window_size(p.height, p.kernel)) *
                        static_cast<double>(polc::na2d::window_size(p.width, p.kernel));
  const double queries = static_cast<double>(p.batch) * static_cast<double>(p.height) * static_cast<double>(p.width);
  const double multiplications = 2.0 * queries * window * static_cast<double>(p.heads) * static_cast<double>(p.dim);
  return 1 + static_cast<int64_t>(std::min(multiplications / kMultiplicationsPerThread, 1e6));
}

}  // namespace

// Neighbourhood attention; arguments as in polc::na2d::Problem, rpb may be null. The number of threads changes no bit.
// Returns 0; 1 where the sizes do not make a problem; 2 where memory ran out.
POLC_EXPORT int polc_na2d_f32(const float* q, const float* k, const float* v, const float* rpb, float* out,
                              int64_t batch, int64_t height, int64_t width, int64_t heads, int64_t dim, int64_t kernel,
                              float scale, int threads) {
  const Problem problem{q, k, v, rpb, out, batch, height, width, heads, dim, kernel, scale};
  try {
    if (!polc::na2d::check(problem).empty()) return 1;
    const int64_t used = std::min<int64_t>(std::max(threads, 1), worthwhile_threads(problem));
    polc::na2d::forward(problem, [&](int64_t count, const auto& body) { fork_join(count, used, body); });
  } catch (const std::bad_alloc&) {
    return 2;
  }
  return 0;
}

// The instruction set in use: baseline, avx2 or avx512.
POLC_EXPORT const char* polc_ops_isa() { return polc::na2d::implementation().name; }
