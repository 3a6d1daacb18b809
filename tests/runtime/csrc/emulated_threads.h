// The threads of a block on the CPU, as fibers: each runs until it needs others, at a barrier or at an instruction of
// its warp. Threads run in a random order, so that what depends on the order shows.
//
// An asynchronous copy happens at once or when it is waited for, at random: the device promises no more.
//
// Compiled with -fsanitize=thread every access to memory is watched: two by different threads of a block, one of them a
// write, with no barrier between them are an error, in whatever order they happened to run.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "emulated_cuda.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WATCHED_THREADS
#endif
#elif defined(__SANITIZE_THREAD__)
#define WATCHED_THREADS
#endif

extern "C" {
#if defined(WATCHED_THREADS)
// The sanitizer's own functions; its headers do not declare all of them.
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);  // 1: without ordering what both do
void __tsan_acquire(void* place);
void __tsan_release(void* place);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
#else
inline void* __tsan_get_current_fiber() { return nullptr; }
inline void* __tsan_create_fiber(unsigned) { return nullptr; }
inline void __tsan_destroy_fiber(void*) {}
inline void __tsan_switch_to_fiber(void*, unsigned) {}
inline void __tsan_acquire(void*) {}
inline void __tsan_release(void*) {}
inline void AnnotateIgnoreReadsBegin(const char*, int) {}
inline void AnnotateIgnoreReadsEnd(const char*, int) {}
inline void AnnotateIgnoreWritesBegin(const char*, int) {}
inline void AnnotateIgnoreWritesEnd(const char*, int) {}
#endif
}

namespace emulated_cuda {

using Random = std::mt19937_64;

constexpr size_t kLanes = 32;

// While one lives, the sanitizer does not watch its thread: the emulation's own memory is nobody's.
struct Unwatched {
  Unwatched() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unwatched() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
};

// An instruction of the whole warp: `execute` gets what each lane brought.
using Execute = void (*)(const std::array<void*, kLanes>& brought);

class Threads {
 public:
  // Runs body(thread) for so many threads, a multiple of kLanes.
  Threads(size_t count, const std::function<void(size_t)>& body, Random& random)
      : body_(body), random_(random), threads_(count) {
    const Unwatched scheduler;
    Threads* const outer = std::exchange(running, this);
    for (size_t thread = 0; thread < count; ++thread) start(thread);
    std::vector<size_t> warps(count / kLanes);
    std::iota(warps.begin(), warps.end(), size_t{0});
    do {
      std::shuffle(warps.begin(), warps.end(), random_);
      for (const size_t warp : warps) run_warp(warp);
    } while (all_wait());
    for (const Thread& thread : threads_) __tsan_destroy_fiber(thread.watched);
    running = outer;
  }

  // Called by a thread: waits for its warp and lets the instruction happen.
  void together(Execute execute, void* brought) {
    const Unwatched emulation;
    threads_[current_].wanted = execute;
    threads_[current_].brought = brought;
    pause(State::kInstruction);
  }

  // Called by a thread: waits for the block.
  void barrier() {
    const Unwatched emulation;
    char& order = orders_[threads_[current_].barriers++ % 2];  // the next barrier begins before all go on
    __tsan_release(&order);
    pause(State::kBarrier);
    __tsan_acquire(&order);
  }

  // Called by a thread, as the functions of CUDA.
  void start_copy(uint4* target, const uint4* source) {
    demand(is_aligned(target) && is_aligned(source), "a copy of chunks that are not aligned");
    if (happens_at_once({target, source})) *target = *source;
  }

  void commit() {
    const Unwatched emulation;
    threads_[current_].committed.push_back(std::exchange(threads_[current_].started, {}));
  }

  void wait(size_t prior) {
    for (const Copy& copy : waited_for(prior)) *copy.target = *copy.source;
  }

  // Whether 16 bytes may be read or written there at once.
  static bool is_aligned(const void* chunk) { return reinterpret_cast<uintptr_t>(chunk) % 16 == 0; }

  static void demand(bool holds, const char* message) {
    if (holds) return;
    std::fprintf(stderr, "emulated threads: %s\n", message);
    std::abort();
  }

  static inline Threads* running = nullptr;

 private:
  enum class State { kNew, kRuns, kInstruction, kBarrier, kDone };

  struct Copy {
    uint4* target;
    const uint4* source;
  };

  struct Thread {
    ucontext_t fiber;
    void* watched = nullptr;  // the sanitizer's fiber
    State state = State::kNew;
    Execute wanted = nullptr;
    void* brought = nullptr;
    size_t barriers = 0;
    std::vector<Copy> started;
    std::deque<std::vector<Copy>> committed;
  };

  static constexpr size_t kStack = 1 << 17;

  bool happens_at_once(Copy copy) {
    const Unwatched emulation;
    if (random_() % 2) return true;
    threads_[current_].started.push_back(copy);
    return false;
  }

  std::vector<Copy> waited_for(size_t prior) {
    const Unwatched emulation;
    std::vector<Copy> copies;
    std::deque<std::vector<Copy>>& groups = threads_[current_].committed;
    for (; groups.size() > prior; groups.pop_front())
      copies.insert(copies.end(), groups.front().begin(), groups.front().end());
    return copies;
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
    __tsan_switch_to_fiber(threads.watched_scheduler_, 0);
    setcontext(&threads.scheduler_);
  }

  void start(size_t thread) {
    ucontext_t& fiber = threads_[thread].fiber;
    getcontext(&fiber);
    fiber.uc_stack.ss_sp = stack(thread);
    fiber.uc_stack.ss_size = kStack;
    makecontext(&fiber, &Threads::run_thread, 0);
    threads_[thread].watched = __tsan_create_fiber(0);
  }

  void pause(State state) {
    Thread& thread = threads_[current_];
    thread.state = state;
    __tsan_switch_to_fiber(watched_scheduler_, 1);
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
        const bool begins = std::exchange(threads_[lane].state, State::kRuns) == State::kNew;
        current_ = lane;
        __tsan_switch_to_fiber(threads_[lane].watched, begins ? 0 : 1);
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
  void* const watched_scheduler_ = __tsan_get_current_fiber();
  size_t current_ = 0;
  char orders_[2];  // what the sanitizer knows a barrier by
};

}  // namespace emulated_cuda

inline void barrier() { emulated_cuda::Threads::running->barrier(); }

inline void __pipeline_memcpy_async(void* target, const void* source, size_t bytes) {
  emulated_cuda::Threads::demand(bytes == sizeof(uint4), "a copy that is not of a chunk");
  emulated_cuda::Threads::running->start_copy(static_cast<uint4*>(target), static_cast<const uint4*>(source));
}

inline void __pipeline_commit() { emulated_cuda::Threads::running->commit(); }

inline void __pipeline_wait_prior(size_t prior) { emulated_cuda::Threads::running->wait(prior); }
