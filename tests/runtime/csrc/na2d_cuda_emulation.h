// Runs the CUDA attention kernel's source on the CPU, block by block. Shared memory is exactly as long as it must be.
#pragma once

#include "emulated_cuda.h"
#include "emulated_threads.h"
#include "emulated_warp.h"

#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>

#include "na2d_cuda.cuh"

namespace emulation {

using emulated_cuda::Random;
using polc::na2d::cuda::Problem;

template <class Kind, class T>
void run_block(const Problem<T>& p, unsigned index, Random& random) {
  const std::unique_ptr<uint4[]> memory(new uint4[Kind::kMemory]);
  std::memset(memory.get(), 0xff, Kind::kMemory * sizeof(uint4));  // NaN
  const auto run = [&](size_t thread) { Kind(p, index, static_cast<unsigned>(thread), memory.get()).run(); };
  emulated_cuda::Threads(Kind::kThreads, run, random);
}

// The problem on a device with so many bytes of shared memory a block. Whether the weights were rounded to halves.
template <class T>
bool emulate(const Problem<T>& p, int64_t memory, Random& random) {
  return polc::na2d::cuda::dispatch(p, memory, [&](auto* kind) {
    using Kind = std::remove_pointer_t<decltype(kind)>;
    for (int64_t i = 0; i < Kind::count(p); ++i) run_block<Kind>(p, static_cast<unsigned>(i), random);
    return Kind::kRoundsWeights;
  });
}

}  // namespace emulation
