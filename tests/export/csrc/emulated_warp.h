// The 32 threads of a warp on the CPU, as fibers: each runs until it needs the others, and once all have come to the
// same instruction it is done for all. The layouts are those of the PTX ISA (export/csrc/na2d_cuda_mma.inc).
#pragma once

#include <ucontext.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>

#include "emulated_cuda.h"

namespace emulated_cuda {

constexpr int kLanes = 32;

// An instruction of the whole warp: `execute` gets what each lane brought.
using Execute = void (*)(const std::array<void*, kLanes>& brought);

class Warp {
 public:
  // Runs body(lane) for every lane.
  explicit Warp(const std::function<void(int)>& body) : body_(body) {
    Warp* const outer = std::exchange(running, this);
    for (int lane = 0; lane < kLanes; ++lane) start(lane);
    while (resume_all()) {
      for (int lane = 1; lane < kLanes; ++lane) demand(wanted_[lane] == wanted_[0], "lanes at different instructions");
      wanted_[0](brought_);
    }
    running = outer;
  }

  // Called by a lane: waits for the others and lets the instruction happen.
  void together(Execute execute, void* brought) {
    const auto lane = static_cast<size_t>(lane_);
    wanted_[lane] = execute;
    brought_[lane] = brought;
    swapcontext(&fibers_[lane], &scheduler_);
  }

  static inline Warp* running = nullptr;

 private:
  static constexpr size_t kStack = 1 << 17;

  static void demand(bool holds, const char* message) {
    if (holds) return;
    std::fprintf(stderr, "emulated warp: %s\n", message);
    std::abort();
  }

  static void run_lane() {
    Warp& warp = *running;
    const int lane = warp.lane_;
    warp.body_(lane);
    warp.done_[static_cast<size_t>(lane)] = true;
  }

  void start(int number) {
    const auto lane = static_cast<size_t>(number);
    stacks_[lane].reset(new char[kStack]);
    getcontext(&fibers_[lane]);
    fibers_[lane].uc_stack.ss_sp = stacks_[lane].get();
    fibers_[lane].uc_stack.ss_size = kStack;
    fibers_[lane].uc_link = &scheduler_;
    makecontext(&fibers_[lane], &Warp::run_lane, 0);
  }

  // Runs every lane to its next instruction; whether there is one.
  bool resume_all() {
    int done = 0;
    for (lane_ = 0; lane_ < kLanes; ++lane_) {
      swapcontext(&scheduler_, &fibers_[static_cast<size_t>(lane_)]);
      done += done_[static_cast<size_t>(lane_)];
    }
    demand(done == 0 || done == kLanes, "some lanes ended while others wait for them");
    return done == 0;
  }

  const std::function<void(int)>& body_;
  ucontext_t scheduler_;
  std::array<ucontext_t, kLanes> fibers_;
  std::array<std::unique_ptr<char[]>, kLanes> stacks_;
  std::array<Execute, kLanes> wanted_{};
  std::array<void*, kLanes> brought_{};
  std::array<bool, kLanes> done_{};
  int lane_ = 0;
};

inline __half half_of(unsigned word, int place) { return {static_cast<uint16_t>(word >> (16 * place))}; }

}  // namespace emulated_cuda

template <bool kTransposed>
void ldmatrix(const uint4* row, unsigned (&matrices)[4]) {
  struct Brought {
    const uint4* row;
    unsigned* matrices;
  } mine{row, matrices};
  emulated_cuda::Warp::running->together(
      [](const std::array<void*, emulated_cuda::kLanes>& brought) {
        const auto lane_of = [&](int lane) { return *static_cast<const Brought*>(brought[static_cast<size_t>(lane)]); };
        for (int lane = 0; lane < emulated_cuda::kLanes; ++lane)
          for (int i = 0; i < 4; ++i) {
            uint16_t pair[2];
            for (int e = 0; e < 2; ++e) {
              const int major = lane / 4, minor = lane % 4 * 2 + e;
              const int r = kTransposed ? minor : major, c = kTransposed ? major : minor;
              uint16_t elements[8];
              std::memcpy(elements, lane_of(8 * i + r).row, sizeof(elements));
              pair[e] = elements[c];
            }
            std::memcpy(&lane_of(lane).matrices[i], pair, sizeof(pair));
          }
      },
      &mine);
}

inline void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  struct Brought {
    float* c;
    const unsigned* a;
    unsigned b[2];
  } mine{c, a, {b0, b1}};
  emulated_cuda::Warp::running->together(
      [](const std::array<void*, emulated_cuda::kLanes>& brought) {
        float a[16][16], b[16][8];
        for (int lane = 0; lane < emulated_cuda::kLanes; ++lane) {
          const Brought& one = *static_cast<const Brought*>(brought[static_cast<size_t>(lane)]);
          const int g = lane / 4, t = lane % 4;
          for (int e = 0; e < 2; ++e) {
            for (int i = 0; i < 4; ++i)
              a[g + i % 2 * 8][2 * t + e + i / 2 * 8] = __half2float(emulated_cuda::half_of(one.a[i], e));
            for (int i = 0; i < 2; ++i) b[2 * t + e + i * 8][g] = __half2float(emulated_cuda::half_of(one.b[i], e));
          }
        }
        for (int lane = 0; lane < emulated_cuda::kLanes; ++lane)
          for (int i = 0; i < 4; ++i) {
            float& sum = static_cast<const Brought*>(brought[static_cast<size_t>(lane)])->c[i];
            for (int k = 0; k < 16; ++k) sum += a[lane / 4 + i / 2 * 8][k] * b[k][lane % 4 * 2 + i % 2];
          }
      },
      &mine);
}

inline float of_lane(float value, int mask) {
  struct Brought {
    float value;
    int mask;
    float result;
  } mine{value, mask, 0.0f};
  emulated_cuda::Warp::running->together(
      [](const std::array<void*, emulated_cuda::kLanes>& brought) {
        for (size_t lane = 0; lane < emulated_cuda::kLanes; ++lane) {
          Brought& one = *static_cast<Brought*>(brought[lane]);
          one.result = static_cast<const Brought*>(brought[lane ^ static_cast<size_t>(one.mask)])->value;
        }
      },
      &mine);
  return mine.result;
}
