// ONNX Runtime's operator for CUDA devices, offered for the CPU: with the kernels emulated (na2d_cuda_emulated.cc), a
// session without a GPU runs it.
#include "ort_cuda_op.h"
#include "visibility.h"

namespace {

class Emulated : public polc::ort::CudaKernel {
 public:
  static constexpr const char* kProvider = "CPUExecutionProvider";

  using CudaKernel::CudaKernel;
};

}  // namespace

POLC_EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const polc::ort::OrtApiBase* base) {
  return polc::ort::register_ops<Emulated>(options, base);
}
