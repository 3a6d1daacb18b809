// Runs the CUDA attention kernel's source on the CPU: block by block, each phase for all threads of the block in a
// random order, so that what depends on the order within a phase shows. Shared memory is exactly as long as it must be.
#pragma once

#include "emulated_cuda.h"
#include "emulated_warp.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <type_traits>
#include <vector>

#include "na2d_cuda.cuh"

namespace emulation {

using polc::na2d::cuda::Problem;
using Random = std::mt19937_64;

template <class Kind, class T>
void run_block(const Problem<T>& p, unsigned index, Random& random) {
  const std::unique_ptr<uint4[]> memory(new uint4[Kind::kMemory]);
  std::memset(memory.get(), 0xff, Kind::kMemoryBytes);  // NaN
  std::vector<Kind> threads;
  threads.reserve(Kind::kThreads);
  for (unsigned thread = 0; thread < Kind::kThreads; ++thread) threads.emplace_back(p, index, thread, memory.get());
  std::vector<size_t> order(Kind::kThreads);
  std::iota(order.begin(), order.end(), size_t{0});
  const auto phase = [&](auto run) {
    std::shuffle(order.begin(), order.end(), random);
    for (const size_t thread : order) run(threads[thread]);
  };
  phase([](Kind& thread) { thread.load(); });
  if constexpr (Kind::kPuts) {
    phase([](Kind& thread) { thread.attend(); });
    phase([](Kind& thread) { thread.put(); });
    phase([](Kind& thread) { thread.store(); });
  } else {
    order.resize(Kind::kThreads / 32);
    std::iota(order.begin(), order.end(), size_t{0});
    std::shuffle(order.begin(), order.end(), random);
    for (const size_t warp : order) emulated_cuda::Warp([&](int lane) { threads[32 * warp + lane].attend(); });
  }
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
