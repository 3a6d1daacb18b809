// ONNX Runtime custom-op library with the operators for the CPU.
#include "ort_cpu_op.h"
#include "visibility.h"

POLC_EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const polc::ort::OrtApiBase* base) {
  return polc::ort::register_ops<polc::ort::CpuKernel>(options, base);
}
