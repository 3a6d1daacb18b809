// The CUDA operators as plain C functions on raw device pointers: PyTorch through ctypes (polc/attention/cuda.py).
#include <exception>
#include <new>
#include <string>

#include "na2d_cuda.cuh"
#include "visibility.h"

namespace {

enum Status { kStarted = 0, kRefused = 1, kCudaError = 2 };

thread_local std::string last_error;

template <class T>
int start(const polc::na2d::cuda::Problem<T>& problem, void* stream) {
  try {
    last_error = polc::na2d::cuda::check(problem);
    if (!last_error.empty()) return kRefused;
    const cudaError_t status = polc::na2d::cuda::forward(problem, static_cast<cudaStream_t>(stream));
    if (status == cudaSuccess) return kStarted;
    last_error = cudaGetErrorString(status);
  } catch (const std::bad_alloc&) {
    last_error.clear();
  }
  return kCudaError;
}

}  // namespace

// Starts neighbourhood attention on the current device and a stream (a cudaStream_t); arguments as in
// polc::na2d::cuda::Problem, all pointers to device memory, rpb may be null.
// Returns 0 once it is under way; 1 where the arguments do not make a problem it takes; 2 where CUDA fails.
POLC_EXPORT int polc_na2d_cuda_f32(const float* q, const float* k, const float* v, const float* rpb, float* out,
                                   int64_t batch, int64_t height, int64_t width, int64_t heads, int64_t dim,
                                   int64_t kernel, float scale, void* stream) {
  return start<float>({q, k, v, rpb, out, batch, height, width, heads, dim, kernel, scale}, stream);
}

// The same with q, k, v and out in half precision; rpb stays float.
POLC_EXPORT int polc_na2d_cuda_f16(const void* q, const void* k, const void* v, const float* rpb, void* out,
                                   int64_t batch, int64_t height, int64_t width, int64_t heads, int64_t dim,
                                   int64_t kernel, float scale, void* stream) {
  return start<__half>({static_cast<const __half*>(q), static_cast<const __half*>(k), static_cast<const __half*>(v),
                        rpb, static_cast<__half*>(out), batch, height, width, heads, dim, kernel, scale},
                       stream);
}

// What this thread's last call of the functions above said in failing, or an empty text.
POLC_EXPORT const char* polc_ops_cuda_error() { return last_error.c_str(); }
