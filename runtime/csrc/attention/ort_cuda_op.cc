// ONNX Runtime custom-op library with the operators for CUDA devices and for the CPU: a session takes the operators of
// a domain from one library alone, and may run some nodes on the CPU.
#include "ort_cpu_op.h"
#include "ort_cuda_op.h"
#include "visibility.h"

POLC_EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const polc::ort::OrtApiBase* base) {
  return polc::ort::register_ops<polc::ort::CudaKernel, polc::ort::CpuKernel>(options, base);
}
