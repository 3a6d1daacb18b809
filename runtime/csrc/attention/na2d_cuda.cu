// The CUDA kernels, compiled for the devices of the build; the wrappers reach them through na2d_cuda_start.h.
#include <type_traits>
#include <utility>

#include "na2d_cuda.cuh"
#include "na2d_cuda_start.h"

namespace polc::na2d::cuda {
namespace {

// Calls `run` with the request as a problem of its type.
template <class Run>
auto with_problem(const Request& r, const Run& run) {
  const Bias bias = r.rpb_type == Type::kHalf ? Bias(static_cast<const __half*>(r.rpb))
                                              : Bias(static_cast<const float*>(r.rpb));
  const auto typed = [&](auto* out) {
    using T = std::remove_pointer_t<decltype(out)>;
    const auto tensor = [](const void* data) { return static_cast<const T*>(data); };
    return run(Problem<T>{tensor(r.q), tensor(r.k), tensor(r.v), bias, out, r.batch, r.height, r.width, r.heads, r.dim,
                          r.kernel, r.scale});
  };
  return r.type == Type::kHalf ? typed(static_cast<__half*>(r.out)) : typed(static_cast<float*>(r.out));
}

}  // namespace

std::string check(const Request& request) {
  return with_problem(request, [](const auto& problem) { return check(problem); });
}

Outcome start(const Request& request, void* stream) {
  std::string wrong = check(request);
  if (!wrong.empty()) return {Status::kRefused, std::move(wrong)};
  const cudaError_t status = with_problem(
      request, [&](const auto& problem) { return forward(problem, static_cast<cudaStream_t>(stream)); });
  if (status == cudaSuccess) return {Status::kStarted, ""};
  return {Status::kFailed, cudaGetErrorString(status)};
}

}  // namespace polc::na2d::cuda
