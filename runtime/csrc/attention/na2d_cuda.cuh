// Two-dimensional neighbourhood attention on CUDA devices: one kernel for every host (TensorRT, ONNX Runtime, PyTorch),
// forward only.
//
// It compiles for sm_80, sm_90 and PTX. The tests run the same source on the CPU, the threads of a block as fibers, with
// barriers, copies and the instructions of a warp emulated, and every access to memory watched for races
// (tests/runtime/csrc/na2d_cuda_emulation.h). docs/status.md says what has run on a device, docs/cuda.md what can be
// computed of the speed.
//
// For q, k, v [batch, height, width, heads, dim], contiguous float or half, dim 16, 32 or 64: along an axis of length
// L, query i attends to keys start .. start + kernel - 1, start = clamp(i - kernel / 2, 0, L - kernel) (every key where
// L < kernel), with logits scale * q.k + rpb[head, key - query + kernel - 1 by axis]. Products and softmax are float,
// rpb is float or half. The specification is polc/attention/reference.py.
//
// There are three kinds of block. For kernels 3 and 7 a block takes a tile of queries of one head, with the tile's keys
// and values in shared memory: the rows and columns from the first query's start to the last one's start + kernel, all
// inside the map. Elements lie there in chunks of 16 bytes, chunk c of every key side by side. Floats are multiplied by
// ordinary arithmetic (na2d_cuda_slices.inc), halves by tensor cores (na2d_cuda_mma.inc), without which they would take
// as long as floats. Every other problem reads keys from global memory, key by key (na2d_cuda_plain.inc).
//
// Away from nvcc the host must bring what it uses of CUDA, and gets everything but the launch. C++17.
#pragma once

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#include <cuda_pipeline_primitives.h>
#include <cuda_runtime.h>
#define POLC_UNROLL _Pragma("unroll")
#define POLC_NO_UNROLL _Pragma("unroll 1")
#else
#define POLC_UNROLL
#define POLC_NO_UNROLL
#endif

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

namespace polc::na2d::cuda {

// A relative position bias [heads, 2 * kernel - 1, 2 * kernel - 1] in float or half; null for none.
struct Bias {
  Bias() = default;
  Bias(const float* values) : values(values) {}
  Bias(const __half* values) : values(values), half(true) {}

  const void* values = nullptr;
  bool half = false;
};

template <class T>  // float or __half
struct Problem {
  const T* q;
  const T* k;
  const T* v;
  Bias rpb;
  T* out;
  int64_t batch, height, width, heads, dim;
  int64_t kernel;  // odd
  float scale;
};

#include "na2d_cuda_parts.inc"
#include "na2d_cuda_plain.inc"
#include "na2d_cuda_slices.inc"
#include "na2d_cuda_mma.inc"

// Of shared memory, that a kind of block takes.
template <class Kind>
constexpr int kMemoryBytes = Kind::kMemory * static_cast<int>(sizeof(uint4));

// What is wrong with a problem, or an empty string. Null pointers other than rpb are the caller's to check.
template <class T>
std::string check(const Problem<T>& p) {
  constexpr int64_t kMost = 1 << 30;
  constexpr double kMostInInt = std::numeric_limits<int32_t>::max();
  const int64_t sizes[] = {p.batch, p.height, p.width, p.heads};
  for (const int64_t size : sizes)
    if (size < 0 || size > kMost) return "expected sizes from 0 to 1073741824, got " + std::to_string(size);
  if (p.dim != 16 && p.dim != 32 && p.dim != 64)
    return "expected a dim of 16, 32 or 64, got " + std::to_string(p.dim);
  if (p.kernel < 1 || p.kernel % 2 == 0 || p.kernel > 255)
    return "expected an odd kernel_size from 1 to 255, got " + std::to_string(p.kernel);
  const auto product = [](auto... sizes) { return (static_cast<double>(sizes) * ...); };
  // A tile may reach 32 rows or columns beyond the map.
  if (product(p.batch, p.height) + 32 > kMostInInt ||
      product(p.width + 32, p.heads, p.dim, sizeof(T)) / 16 > kMostInInt || count_tiles(p, 8, 16) > kMostInInt)
    return "the tensors are too large";
  const T* tensors[] = {p.q, p.k, p.v, p.out};
  for (const T* tensor : tensors)
    if (reinterpret_cast<uintptr_t>(tensor) % 16 != 0) return "expected q, k, v and out aligned to 16 bytes";
  return "";
}

// The kind of block for kernel K, where map, scale and shared memory are large enough for it.
template <class T, int D, int K>
using TiledBlock = std::conditional_t<std::is_same_v<T, __half>, MmaBlock<D, K>, SliceBlock<K>>;

template <class T, int D, int K, class Run>
auto run_tiled(const Problem<T>& p, int64_t memory, const Run& run) {
  using Kind = TiledBlock<T, D, K>;
  const bool suits = p.height >= K && p.width >= K && p.scale >= Kind::kLeastScale;
  if (suits && kMemoryBytes<Kind> <= memory) return run(static_cast<Kind*>(nullptr));
  return run(static_cast<PlainBlock<T, D>*>(nullptr));
}

template <class T, int D, class Run>
auto run_dim(const Problem<T>& p, int64_t memory, const Run& run) {
  if (p.kernel == 3) return run_tiled<T, D, 3>(p, memory, run);
  if (p.kernel == 7) return run_tiled<T, D, 7>(p, memory, run);
  return run(static_cast<PlainBlock<T, D>*>(nullptr));
}

// Gives `run` a null pointer to the kind of block that suits a problem on a device with that many bytes of shared memory
// a block. `check` must have found nothing wrong.
template <class T, class Run>
auto dispatch(const Problem<T>& p, int64_t memory, const Run& run) {
  if (p.dim == 16) return run_dim<T, 16>(p, memory, run);
  if (p.dim == 32) return run_dim<T, 32>(p, memory, run);
  return run_dim<T, 64>(p, memory, run);
}

}  // namespace polc::na2d::cuda

#if defined(__CUDACC__)
namespace polc::na2d::cuda {

template <class Kind>
__global__ void __launch_bounds__(Kind::kThreads, Kind::kBlocksAtOnce)
    attention(const Problem<typename Kind::Element> problem) {
  extern __shared__ uint4 memory[];
  Kind block(problem, blockIdx.x, threadIdx.x, memory);
  block.run();
}

template <class Kind>
cudaError_t launch(const Problem<typename Kind::Element>& problem, cudaStream_t stream) {
  const auto kernel = &attention<Kind>;
  const cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kMemoryBytes<Kind>);
  if (status != cudaSuccess) return status;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(Kind::count(problem)));
  config.blockDim = dim3(Kind::kThreads);
  config.dynamicSmemBytes = kMemoryBytes<Kind>;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, problem);
}

// Starts computing problem.out on the current device; cudaErrorInvalidValue where `check` finds something wrong.
template <class T>
cudaError_t forward(const Problem<T>& problem, cudaStream_t stream) {
  if (!check(problem).empty()) return cudaErrorInvalidValue;
  if (count_tiles(problem, 8, 16) == 0) return cudaSuccess;
  int device = 0, memory = 0;
  cudaError_t status = cudaGetDevice(&device);
  if (status == cudaSuccess)
    status = cudaDeviceGetAttribute(&memory, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (status != cudaSuccess) return status;
  return dispatch(problem, memory, [&](auto* kind) {
    return launch<std::remove_pointer_t<decltype(kind)>>(problem, stream);
  });
}

}  // namespace polc::na2d::cuda
#endif
#undef POLC_UNROLL
#undef POLC_NO_UNROLL
