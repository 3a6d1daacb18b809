// ONNX Runtime's NeighborhoodAttention2D on the CPU. Float16 tensors are computed in float.
#pragma once

#include <algorithm>
#include <memory>

#include "half_float.h"
#include "na2d_cpu.h"
#include "ort_attention.h"

namespace polc::ort {

class CpuKernel : public Attention {
 public:
  static constexpr const char* kProvider = "CPUExecutionProvider";

  using Attention::Attention;

  void compute(OrtKernelContext* context) const {
    const Inputs in = inputs(context);
    const std::vector<int64_t>& s = in.shape;
    polc::na2d::Problem problem{nullptr, nullptr, nullptr, nullptr,      nullptr, s[0], s[1],
                                s[2],    s[3],    s[4],    kernel_size_, scale_};
    if (const std::string wrong = polc::na2d::check(problem); !wrong.empty()) api_.refuse(wrong);
    const auto run = [&] {
      polc::na2d::forward(problem, [&](int64_t count, const auto& body) { parallel_for(context, count, body); });
    };
    void* const out = output(context, s);
    const Floats rpb(*this, context, in.rpb, bias_type_, s[3] * (2 * kernel_size_ - 1) * (2 * kernel_size_ - 1));
    const int64_t size = s[0] * s[1] * s[2] * s[3] * s[4];
    const Floats q(*this, context, in.data[0], type_, size), k(*this, context, in.data[1], type_, size),
        v(*this, context, in.data[2], type_, size);
    problem.q = q.data(), problem.k = k.data(), problem.v = v.data(), problem.rpb = rpb.data();
    if (type_ == kFloat) {
      problem.out = static_cast<float*>(out);
      return run();
    }
    const std::unique_ptr<float[]> result(new float[static_cast<size_t>(size)]);
    problem.out = result.get();
    run();
    each(context, size, [&](int64_t i) { static_cast<uint16_t*>(out)[i] = polc::half_of_float(result[size_t(i)]); });
  }

 private:
  // A tensor as floats: the tensor itself, or a copy.
  class Floats {
   public:
    Floats(const CpuKernel& kernel, const OrtKernelContext* context, const void* data, ElementType type, int64_t size)
        : data_(static_cast<const float*>(data)) {
      if (type == kFloat || data == nullptr) return;
      copy_.reset(new float[static_cast<size_t>(size)]);
      kernel.each(context, size, [&](int64_t i) {
        copy_[static_cast<size_t>(i)] = polc::float_of_half(static_cast<const uint16_t*>(data)[i]);
      });
      data_ = copy_.get();
    }

    const float* data() const { return data_; }

   private:
    const float* data_;
    std::unique_ptr<float[]> copy_;
  };

  // body(0) .. body(count - 1) on the session's own threads.
  template <class Body>
  void parallel_for(const OrtKernelContext* context, int64_t count, const Body& body) const {
    const auto call = [](void* data, size_t index) { (*static_cast<const Body*>(data))(static_cast<int64_t>(index)); };
    api_(api_->KernelContext_ParallelFor(context, call, static_cast<size_t>(count), 0, const_cast<Body*>(&body)));
  }

  // The same for bodies of an instruction or two.
  template <class Body>
  void each(const OrtKernelContext* context, int64_t count, const Body& body) const {
    constexpr int64_t kPiece = 1 << 16;
    parallel_for(context, (count + kPiece - 1) / kPiece, [&](int64_t piece) {
      const int64_t end = std::min(count, (piece + 1) * kPiece);
      for (int64_t i = piece * kPiece; i < end; ++i) body(i);
    });
  }
};

}  // namespace polc::ort
