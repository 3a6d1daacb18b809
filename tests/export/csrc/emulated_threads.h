// The threads of a block on the CPU, as fibers: each runs until it needs others, at a barrier or at an instruction of
// its warp. Threads run in a random order, so that what depends on the order shows.
//
// An asynchronous copy happens at once or when it is waited for, at random: the device promises no more.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "emulated_cuda.h"

namespace emulated_cuda {

using Random = std::mt19937_64;

constexpr size_t kLanes = 32;

// An instruction of the whole warp: `execute` gets what each lane brought.
using Execute = void (*)(const std::array<void*, kLanes>& brought);

class Threads {
 public:
  // Runs body(thread) for so many threads, a multiple of kLanes.
  Threads(size_t count, const std::function<void(size_t)>& body, Random& random)
      : body_(body), random_(random), threads_(count) {
    Threads* const outer = std::exchange(running, this);
    for (size_t thread = 0; thread < count; ++thread) start(thread);
    std::vector<size_t> warps(count / kLanes);
    std::iota(warps.begin(), warps.end(), size_t{0});
    do {
      std::shuffle(warps.begin(), warps.end(), random_);
      for (const size_t warp : warps) run_warp(warp);
    } while (all_wait());
    running = outer;
  }

  // Called by a thread: waits for its warp and lets the instruction happen.
  void together(Execute execute, void* brought) {
    threads_[current_].wanted = execute;
    threads_[current_].brought = brought;
    pause(State::kInstruction);
  }

  // Called by a thread: waits for the block.
  void barrier() { pause(State::kBarrier); }

  // Called by a thread, as the functions of CUDA.
  void start_copy(void* target, const void* source, size_t bytes) {
    if (random_() % 2)
      std::memcpy(target, source, bytes);
    else
      threads_[current_].started.push_back({target, source, bytes});
  }

  void commit() { threads_[current_].committed.push_back(std::exchange(threads_[current_].started, {})); }

  void wait(size_t prior) {
    std::deque<std::vector<Copy>>& groups = threads_[current_].committed;
    for (; groups.size() > prior; groups.pop_front())
      for (const Copy& copy : groups.front()) std::memcpy(copy.target, copy.source, copy.bytes);
  }

  static inline Threads* running = nullptr;

 private:
  enum class State { kRuns, kInstruction, kBarrier, kDone };

  struct Copy {
    void* target;
    const void* source;
    size_t bytes;
  };

  struct Thread {
    ucontext_t fiber;
    State state = State::kRuns;
    Execute wanted = nullptr;
    void* brought = nullptr;
    std::vector<Copy> started;
    std::deque<std::vector<Copy>> committed;
  };

  static constexpr size_t kStack = 1 << 17;

  static void demand(bool holds, const char* message) {
    if (holds) return;
    std::fprintf(stderr, "emulated threads: %s\n", message);
    std::abort();
  }

  static char* stack(size_t thread) {
    static std::vector<std::unique_ptr<char[]>> stacks;
    while (stacks.size() <= thread) stacks.emplace_back(new char[kStack]);
    return stacks[thread].get();
  }

  static void run_thread() {
    Threads& threads = *running;
    const size_t thread = threads.current_;
    threads.body_(thread);
    threads.threads_[thread].state = State::kDone;
  }

  void start(size_t thread) {
    ucontext_t& fiber = threads_[thread].fiber;
    getcontext(&fiber);
    fiber.uc_stack.ss_sp = stack(thread);
    fiber.uc_stack.ss_size = kStack;
    fiber.uc_link = &scheduler_;
    makecontext(&fiber, &Threads::run_thread, 0);
  }

  void pause(State state) {
    Thread& thread = threads_[current_];
    thread.state = state;
    swapcontext(&thread.fiber, &scheduler_);
  }

  // Runs a warp until the block's next barrier, or its end.
  void run_warp(size_t warp) {
    std::array<size_t, kLanes> lanes;
    std::iota(lanes.begin(), lanes.end(), warp * kLanes);
    std::array<void*, kLanes> brought;
    for (;;) {
      std::shuffle(lanes.begin(), lanes.end(), random_);
      for (const size_t lane : lanes) {
        current_ = lane;
        threads_[lane].state = State::kRuns;
        swapcontext(&scheduler_, &threads_[lane].fiber);
      }
      const Thread& first = threads_[warp * kLanes];
      for (size_t lane = 0; lane < kLanes; ++lane) {
        const Thread& thread = threads_[warp * kLanes + lane];
        demand(thread.state == first.state && thread.wanted == first.wanted, "lanes of a warp at different places");
        brought[lane] = thread.brought;
      }
      if (first.state != State::kInstruction) return;
      first.wanted(brought);
    }
  }

  // Whether the threads wait at a barrier; all must, or none.
  bool all_wait() const {
    const auto waits = [](const Thread& thread) { return thread.state == State::kBarrier; };
    const auto waiting = std::count_if(threads_.begin(), threads_.end(), waits);
    const bool together = waiting == 0 || static_cast<size_t>(waiting) == threads_.size();
    demand(together, "warps ended while others wait at a barrier");
    return waiting > 0;
  }

  const std::function<void(size_t)>& body_;
  Random& random_;
  std::vector<Thread> threads_;
  ucontext_t scheduler_;
  size_t current_ = 0;
};

}  // namespace emulated_cuda

inline void barrier() { emulated_cuda::Threads::running->barrier(); }

inline void __pipeline_memcpy_async(void* target, const void* source, size_t bytes) {
  emulated_cuda::Threads::running->start_copy(target, source, bytes);
}

inline void __pipeline_commit() { emulated_cuda::Threads::running->commit(); }

inline void __pipeline_wait_prior(size_t prior) { emulated_cuda::Threads::running->wait(prior); }
