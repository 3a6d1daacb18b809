// ONNX Runtime's NeighborhoodAttention2D on CUDA devices.
#pragma once

#include "na2d_cuda_start.h"
#include "ort_attention.h"

namespace polc::ort {

class CudaKernel : public Attention {
 public:
  static constexpr const char* kProvider = "CUDAExecutionProvider";

  using Attention::Attention;

  void compute(OrtKernelContext* context) const {
    const Inputs in = inputs(context);
    const std::vector<int64_t>& s = in.shape;
    na2d::cuda::Request request{kind(type_), in.data[0], in.data[1],   in.data[2], kind(bias_type_),
                                in.rpb,      nullptr,    s[0],         s[1],       s[2],
                                s[3],        s[4],       kernel_size_, scale_};
    if (const std::string wrong = na2d::cuda::check(request); !wrong.empty()) api_.refuse(wrong);
    request.out = output(context, s);
    void* stream = nullptr;
    api_(api_->KernelContext_GetGPUComputeStream(context, &stream));
    const na2d::cuda::Outcome outcome = na2d::cuda::start(request, stream);
    if (outcome.status != na2d::cuda::Status::kStarted) api_.refuse(outcome.message, ORT_EP_FAIL);
  }

 private:
  static na2d::cuda::Type kind(ElementType type) {
    return type == kHalf ? na2d::cuda::Type::kHalf : na2d::cuda::Type::kFloat;
  }
};

}  // namespace polc::ort
