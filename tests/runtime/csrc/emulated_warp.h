// What the threads of a warp do together, on the CPU. The layouts are those of the PTX ISA
// (runtime/csrc/attention/na2d_cuda_mma.inc).
#pragma once

#include <array>
#include <cstring>

#include "emulated_cuda.h"
#include "emulated_threads.h"

namespace emulated_cuda {

inline __half half_of(unsigned word, int place) { return {static_cast<uint16_t>(word >> (16 * place))}; }

}  // namespace emulated_cuda

template <bool kTransposed>
void ldmatrix(const uint4* row, unsigned (&matrices)[4]) {
  using emulated_cuda::Threads;
  Threads::demand(Threads::is_aligned(row), "ldmatrix of rows that are not aligned");
  struct Brought {
    uint16_t row[8];
    unsigned* matrices;
  } mine{{}, matrices};
  std::memcpy(mine.row, row, sizeof(mine.row));
  Threads::running->together(
      [](const std::array<void*, emulated_cuda::kLanes>& brought) {
        const auto lane_of = [&](int lane) -> const Brought& {
          return *static_cast<const Brought*>(brought[static_cast<size_t>(lane)]);
        };
        for (int lane = 0; lane < int{emulated_cuda::kLanes}; ++lane)
          for (int i = 0; i < 4; ++i) {
            uint16_t pair[2];
            for (int e = 0; e < 2; ++e) {
              const int major = lane / 4, minor = lane % 4 * 2 + e;
              const int r = kTransposed ? minor : major, c = kTransposed ? major : minor;
              pair[e] = lane_of(8 * i + r).row[c];
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
  emulated_cuda::Threads::running->together(
      [](const std::array<void*, emulated_cuda::kLanes>& brought) {
        float a[16][16], b[16][8];
        for (int lane = 0; lane < int{emulated_cuda::kLanes}; ++lane) {
          const Brought& one = *static_cast<const Brought*>(brought[static_cast<size_t>(lane)]);
          const int g = lane / 4, t = lane % 4;
          for (int e = 0; e < 2; ++e) {
            for (int i = 0; i < 4; ++i)
              a[g + i % 2 * 8][2 * t + e + i / 2 * 8] = __half2float(emulated_cuda::half_of(one.a[i], e));
            for (int i = 0; i < 2; ++i) b[2 * t + e + i * 8][g] = __half2float(emulated_cuda::half_of(one.b[i], e));
          }
        }
        for (int lane = 0; lane < int{emulated_cuda::kLanes}; ++lane)
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
  emulated_cuda::Threads::running->together(
      [](const std::array<void*, emulated_cuda::kLanes>& brought) {
        for (size_t lane = 0; lane < emulated_cuda::kLanes; ++lane) {
          Brought& one = *static_cast<Brought*>(brought[lane]);
          one.result = static_cast<const Brought*>(brought[lane ^ static_cast<size_t>(one.mask)])->value;
        }
      },
      &mine);
  return mine.result;
}
