// Two-dimensional neighbourhood attention on the CPU: one kernel for every host (ONNX Runtime, PyTorch).
//
// For q, k, v [batch, height, width, heads, dim], contiguous float32: along an axis of length L, query i attends to
// keys start .. start + kernel - 1, start = clamp(i - kernel / 2, 0, L - kernel) (every key where L < kernel), with
// logits scale * q.k + rpb[head, key - query + kernel - 1 by axis]. The specification is polc/attention/reference.py.
//
// Queries lie side by side in the lanes of a vector: a key then meets a whole vector of queries at one offset, so that
// away from the borders nothing is computed that a mask would drop, and the softmax runs lane by lane. The work is cut
// in units (sample, strip of rows, panel of columns, head); each output is computed by one unit in an order that
// depends on the problem alone, so the number of threads changes no bit. The code is compiled for several instruction
// sets, of which the best one the machine has is taken when the program runs. GCC or Clang, C++17.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace polc::na2d {

struct Problem {
  const float* q;
  const float* k;
  const float* v;
  const float* rpb;  // [heads, 2 * kernel - 1, 2 * kernel - 1], or null for no bias
  float* out;
  int64_t batch, height, width, heads, dim;
  int64_t kernel;  // odd
  float scale;
  // What the gradient needs (na2d_cpu_backward.h), or null: [2, batch, heads, height, width], of each query's logits to
  // base 2 the largest, then the factor that makes the exponentials' sum one.
  float* statistics = nullptr;
};

// What is wrong with a problem, or an empty string. Null pointers are the caller's to check.
inline std::string check(const Problem& problem) {
  const int64_t sizes[] = {problem.batch, problem.height, problem.width, problem.heads, problem.dim};
  int64_t bytes = sizeof(float);
  for (const int64_t size : sizes) {
    if (size < 0) return "expected sizes of 0 or more, got " + std::to_string(size);
    if (size > 0 && bytes > std::numeric_limits<int64_t>::max() / size) return "the tensors are too large";
    bytes *= std::max<int64_t>(size, 1);
  }
  constexpr int64_t kLargestKernel = 255, kLargestDim = 4096;  // they bound the working memory
  if (problem.kernel < 1 || problem.kernel % 2 == 0 || problem.kernel > kLargestKernel)
    return "expected an odd kernel_size from 1 to 255, got " + std::to_string(problem.kernel);
  if (problem.dim > kLargestDim) return "expected a dim of at most 4096, got " + std::to_string(problem.dim);
  return "";
}

inline int64_t window_start(int64_t query, int64_t length, int64_t kernel) {
  return std::max<int64_t>(std::min(query - kernel / 2, length - kernel), 0);
}

inline int64_t window_size(int64_t length, int64_t kernel) { return std::min(length, kernel); }

constexpr int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

constexpr int kPanelColumns = 32;  // queries of a unit along a row; a multiple of every vector's lanes

// The part of a problem that one call works on: queries of one sample and some heads.
struct Unit {
  int64_t sample;
  int64_t head, heads;
  int64_t row_begin, row_end;
  int64_t column_begin, column_end;
};

// How a problem is cut in units, small enough for their keys and values to stay in the cache next to the core. Heads
// are kept together as far as that allows, since memory is read fastest in one piece.
class Cut {
 public:
  explicit Cut(const Problem& p) : p_(p) {
    if (p.batch * p.height * p.width * p.heads * p.dim == 0) return;
    heads_ = std::min(std::max<int64_t>(kChannels / p.dim, 1), p.heads);
    groups_ = (p.heads + heads_ - 1) / heads_;
    heads_ = (p.heads + groups_ - 1) / groups_;
    panels_ = (p.width + kPanelColumns - 1) / kPanelColumns;
    for (rows_ = kMostRows; rows_ > kLeastRows; rows_ /= 2)
      if (p.batch * groups_ * panels_ * ((p.height + rows_ - 1) / rows_) >= kEnoughUnits) break;
    strips_ = (p.height + rows_ - 1) / rows_;
  }

  int64_t heads() const { return heads_; }

  int64_t count() const { return p_.batch * strips_ * panels_ * groups_; }

  Unit unit(int64_t index) const {
    const int64_t head = index % groups_ * heads_;
    index /= groups_;
    const int64_t column = index % panels_ * kPanelColumns;
    index /= panels_;
    const int64_t row = index % strips_ * rows_;
    return {index / strips_,
            head,
            std::min(heads_, p_.heads - head),
            row,
            std::min(row + rows_, p_.height),
            column,
            std::min<int64_t>(column + kPanelColumns, p_.width)};
  }

 private:
  static constexpr int64_t kChannels = 64;  // of a unit
  static constexpr int64_t kMostRows = 24;  // of a strip: more leave threads idle at the end, fewer read keys twice
  static constexpr int64_t kLeastRows = 6;
  static constexpr int64_t kEnoughUnits = 32;

  const Problem& p_;
  int64_t heads_ = 0, groups_ = 0, panels_ = 0, rows_ = 0, strips_ = 0;
};

// Zeroed, aligned working memory, lent to one unit at a time; as many pieces as threads ever held one together.
class ScratchPool {
 public:
  explicit ScratchPool(size_t floats) : bytes_(floats * sizeof(float)) {}

  class Lease {
   public:
    explicit Lease(ScratchPool& pool) : pool_(pool), memory_(pool.take()) {}
    ~Lease() { pool_.give_back(std::move(memory_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    float* data() const { return memory_.get(); }

   private:
    ScratchPool& pool_;
    std::unique_ptr<float, void (*)(float*)> memory_;
  };

 private:
  using Memory = std::unique_ptr<float, void (*)(float*)>;
  static constexpr std::align_val_t kAlignment{64};

  Memory take() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!free_.empty()) {
        Memory memory = std::move(free_.back());
        free_.pop_back();
        return memory;
      }
      free_.reserve(++made_);  // giving back must not fail
    }
    Memory memory(static_cast<float*>(::operator new(bytes_, kAlignment)),
                  [](float* data) { ::operator delete(data, kAlignment); });
    std::memset(memory.get(), 0, bytes_);
    return memory;
  }

  void give_back(Memory memory) {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(std::move(memory));
  }

  size_t bytes_;
  std::mutex mutex_;
  std::vector<Memory> free_;
  size_t made_ = 0;
};

// Calls run(0, scratch) .. run(count - 1, scratch) by parallel_for, each with that much working memory. Hosts' worker
// threads must not see exceptions: what the first unit to fail throws is thrown again at the end.
template <class ParallelFor, class Run>
void run_units(int64_t count, size_t scratch_floats, ParallelFor&& parallel_for, const Run& run) {
  ScratchPool pool(scratch_floats);
  std::atomic<bool> failed{false};
  std::exception_ptr error;
  parallel_for(count, [&](int64_t index) noexcept {
    try {
      const ScratchPool::Lease scratch(pool);
      run(index, scratch.data());
    } catch (...) {
      if (!failed.exchange(true)) error = std::current_exception();
    }
  });
  if (error) std::rethrow_exception(error);
}

#if defined(__clang__)
#define POLC_UNROLL _Pragma("unroll")
#else
#define POLC_UNROLL _Pragma("GCC unroll 16")
#endif

#define POLC_LANES 4
#if defined(__aarch64__)
#define POLC_ROWS 3
#else
#define POLC_ROWS 2
#endif
#define POLC_TARGET
namespace baseline {
#include "na2d_cpu_vector.inc"
#include "na2d_cpu_unit.inc"
}  // namespace baseline
#undef POLC_LANES
#undef POLC_ROWS
#undef POLC_TARGET

#if defined(__x86_64__)
#define POLC_TARGET_AVX2 __attribute__((target("avx2,fma")))
#define POLC_TARGET_AVX512 __attribute__((target("avx2,fma,avx512f,avx512vl,avx512bw,avx512dq")))

#define POLC_LANES 8
#define POLC_ROWS 2
#define POLC_TARGET POLC_TARGET_AVX2
namespace avx2 {
#include "na2d_cpu_vector.inc"
#include "na2d_cpu_unit.inc"
}  // namespace avx2
#undef POLC_LANES
#undef POLC_ROWS
#undef POLC_TARGET

#define POLC_LANES 16
#define POLC_ROWS 3
#define POLC_TARGET POLC_TARGET_AVX512
namespace avx512 {
#include "na2d_cpu_vector.inc"
#include "na2d_cpu_unit.inc"
}  // namespace avx512
#undef POLC_LANES
#undef POLC_ROWS
#undef POLC_TARGET
#endif
#undef POLC_UNROLL

// The kernel for one instruction set.
struct Implementation {
  const char* name;
  size_t (*scratch_floats)(const Problem& problem, const Cut& cut);
  void (*run)(const Problem& problem, const Cut& cut, const Unit& unit, float* scratch);
};

// Those this machine can run, the best one last.
inline std::vector<Implementation> implementations() {
  std::vector<Implementation> found{{"baseline", &baseline::scratch_floats, &baseline::run}};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    found.push_back({"avx2", &avx2::scratch_floats, &avx2::run});
  if (found.size() == 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
    found.push_back({"avx512", &avx512::scratch_floats, &avx512::run});
#endif
  return found;
}

// The one to use: the best, or a lesser one that the environment variable POLC_OPS_ISA names.
inline const Implementation& implementation() {
  static const Implementation chosen = [] {
    const std::vector<Implementation> all = implementations();
    const char* wanted = std::getenv("POLC_OPS_ISA");
    for (const Implementation& one : all)
      if (wanted != nullptr && std::strcmp(wanted, one.name) == 0) return one;
    return all.back();
  }();
  return chosen;
}

// Computes problem.out. parallel_for(count, body) calls body(0) .. body(count - 1), in any order and on any threads.
// Throws std::bad_alloc; `check` must have found nothing wrong.
template <class ParallelFor>
void forward(const Problem& problem, ParallelFor&& parallel_for, const Implementation& chosen = implementation()) {
  const Cut cut(problem);
  if (cut.count() == 0) return;
  run_units(cut.count(), chosen.scratch_floats(problem, cut), parallel_for,
            [&](int64_t index, float* scratch) { chosen.run(problem, cut, cut.unit(index), scratch); });
}

}  // namespace polc::na2d
