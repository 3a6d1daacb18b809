// The CUDA operators as plain C functions on raw device pointers: PyTorch through ctypes (polc/attention/cuda.py).
#include <string>

#include "na2d_cuda_start.h"
#include "visibility.h"

namespace {

thread_local std::string last_error;

}  // namespace

// Starts neighbourhood attention on the current device and a stream (a cudaStream_t); arguments as in
// polc::na2d::cuda::Request, types 0 for float and 1 for half, rpb may be null.
// Returns 0 once it is under way; 1 where the arguments do not make a problem it takes; 2 where CUDA fails.
POLC_EXPORT int polc_na2d_cuda(int type, const void* q, const void* k, const void* v, int rpb_type, const void* rpb,
                               void* out, int64_t batch, int64_t height, int64_t width, int64_t heads, int64_t dim,
                               int64_t kernel, float scale, void* stream) {
  using namespace polc::na2d::cuda;
  try {
    Outcome outcome = start({static_cast<Type>(type), q, k, v, static_cast<Type>(rpb_type), rpb, out, batch, height,
                             width, heads, dim, kernel, scale},
                            stream);
    last_error = std::move(outcome.message);
    return static_cast<int>(outcome.status);
  } catch (...) {
    last_error.clear();
    return static_cast<int>(Status::kFailed);
  }
}

// What this thread's last call of the function above said in failing, or an empty text.
POLC_EXPORT const char* polc_ops_cuda_error() { return last_error.c_str(); }
