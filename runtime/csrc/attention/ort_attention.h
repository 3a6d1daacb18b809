// What ONNX Runtime's NeighborhoodAttention2D (domain `polc`, version 1) is on every device: types, inputs, checks.
//
// Inputs q, k, v [batch, height, width, heads, dim], float or float16, and optionally rpb [heads, 2k-1, 2k-1], float,
// or float16 where q is; attributes kernel_size and scale; output like q. Registered for a session, the operator takes
// the place of the portable body that an exported model carries under the same name.
#pragma once

#include <array>
#include <climits>
#include <cstdint>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "ort_interface.h"

namespace polc::ort {

using ElementType = ONNXTensorElementDataType;
constexpr ElementType kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, kHalf = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;

constexpr size_t kRequiredInputs = 3;
constexpr size_t kBias = 3;

// A failed call of the runtime, on its way to the runtime as the status of the caller.
struct Failure {
  OrtStatus* status;
};

class Api {
 public:
  explicit Api(const OrtApi* api) : api_(api) {}

  const OrtApi* operator->() const { return api_; }

  void operator()(OrtStatus* status) const {
    if (status != nullptr) throw Failure{status};
  }

  [[noreturn]] void refuse(const std::string& message, OrtErrorCode code = ORT_INVALID_ARGUMENT) const {
    throw Failure{api_->CreateStatus(code, ("NeighborhoodAttention2D: " + message).c_str())};
  }

  // Runs a body that may throw, as the runtime's callbacks must not.
  template <class Body>
  OrtStatus* guard(Body&& body) const noexcept {
    try {
      body();
      return nullptr;
    } catch (const Failure& failure) {
      return failure.status;
    } catch (const std::bad_alloc&) {
      return api_->CreateStatus(ORT_FAIL, "NeighborhoodAttention2D: out of memory");
    } catch (const std::exception& error) {
      return api_->CreateStatus(ORT_FAIL, error.what());
    } catch (...) {
      return api_->CreateStatus(ORT_FAIL, "NeighborhoodAttention2D: unknown error");
    }
  }

 private:
  const OrtApi* api_;
};

inline std::string text(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? "," : "") + std::to_string(shape[i]);
  return out + "]";
}

// A node's kernel, but for the computation.
class Attention {
 public:
  Attention(const Api& api, const OrtKernelInfo* info, ElementType type, ElementType bias_type)
      : api_(api), type_(type), bias_type_(bias_type) {
    api_(api_->KernelInfoGetAttribute_int64(info, "kernel_size", &kernel_size_));
    api_(api_->KernelInfoGetAttribute_float(info, "scale", &scale_));
  }

  const Api& api() const { return api_; }

 protected:
  struct Inputs {
    std::array<const void*, kRequiredInputs> data;  // of q, k, v
    const void* rpb;                                // or null
    std::vector<int64_t> shape;                     // of q, k, v
  };

  // The inputs of a call, of shapes that fit.
  Inputs inputs(const OrtKernelContext* context) const {
    std::array<std::vector<int64_t>, kRequiredInputs> shapes;
    Inputs found{};
    for (size_t i = 0; i < kRequiredInputs; ++i) found.data[i] = input(context, i, shapes[i]);
    found.shape = shapes[0];
    if (found.shape.size() != 5 || shapes[1] != found.shape || shapes[2] != found.shape)
      api_.refuse("expected q, k, v of one shape [batch,height,width,heads,dim], got " + text(shapes[0]) + ", " +
                  text(shapes[1]) + ", " + text(shapes[2]));
    std::vector<int64_t> shape;
    found.rpb = input(context, kBias, shape);
    const std::vector<int64_t> expected{found.shape[3], 2 * kernel_size_ - 1, 2 * kernel_size_ - 1};
    if (found.rpb != nullptr && shape != expected)
      api_.refuse("expected rpb of shape " + text(expected) + ", got " + text(shape));
    return found;
  }

  void* output(OrtKernelContext* context, const std::vector<int64_t>& shape) const {
    OrtValue* out = nullptr;
    api_(api_->KernelContext_GetOutput(context, 0, shape.data(), shape.size(), &out));
    void* data = nullptr;
    api_(api_->GetTensorMutableData(out, &data));
    return data;
  }

  const Api api_;
  const ElementType type_, bias_type_;
  int64_t kernel_size_ = 0;
  float scale_ = 0.0f;

 private:
  // An input's data and shape; null for an input left out.
  const void* input(const OrtKernelContext* context, size_t index, std::vector<int64_t>& shape) const {
    size_t count = 0;
    api_(api_->KernelContext_GetInputCount(context, &count));
    const OrtValue* value = nullptr;
    if (index < count) api_(api_->KernelContext_GetInput(context, index, &value));
    if (value == nullptr) return nullptr;
    OrtTensorTypeAndShapeInfo* info = nullptr;
    api_(api_->GetTensorTypeAndShape(value, &info));
    size_t rank = 0;
    OrtStatus* status = api_->GetDimensionsCount(info, &rank);
    shape.resize(rank);
    if (status == nullptr) status = api_->GetDimensions(info, shape.data(), rank);
    api_->ReleaseTensorTypeAndShapeInfo(info);
    api_(status);
    void* data = nullptr;
    api_(api_->GetTensorMutableData(const_cast<OrtValue*>(value), &data));
    return data;
  }
};

// The operator for q, k, v and rpb of such types on an execution provider. `Kernel` is an Attention with a constructor
// of the same arguments and a method `void compute(OrtKernelContext*) const`.
template <class Kernel, ElementType kType, ElementType kBiasType>
OrtCustomOp make_op() {
  // No InferOutputShapeFn: the shapes it would pass on have symbolic sizes without names, which the runtime takes for
  // one size and then shares buffers between tensors of different shapes.
  OrtCustomOp made{};
  made.version = kApiVersion;
  made.GetName = [](const OrtCustomOp*) { return "NeighborhoodAttention2D"; };
  made.GetExecutionProviderType = [](const OrtCustomOp*) { return Kernel::kProvider; };
  made.GetInputTypeCount = [](const OrtCustomOp*) { return kRequiredInputs + 1; };
  made.GetInputType = [](const OrtCustomOp*, size_t index) { return index == kBias ? kBiasType : kType; };
  made.GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
    return index < kRequiredInputs ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
  };
  made.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  made.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
  made.GetOutputType = [](const OrtCustomOp*, size_t) { return kType; };
  made.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  made.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  made.GetEndVersion = [](const OrtCustomOp*) { return INT_MAX; };
  made.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
    return Api(api).guard([&] { *kernel = new Kernel(Api(api), info, kType, kBiasType); });
  };
  made.KernelComputeV2 = [](void* data, OrtKernelContext* context) {
    const Kernel& kernel = *static_cast<const Kernel*>(data);
    return kernel.api().guard([&] { kernel.compute(context); });
  };
  made.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  return made;
}

// The operators for all types that go together.
template <class Kernel>
const std::array<OrtCustomOp, 3>& ops() {
  static const std::array<OrtCustomOp, 3> made{make_op<Kernel, kFloat, kFloat>(), make_op<Kernel, kHalf, kHalf>(),
                                               make_op<Kernel, kHalf, kFloat>()};
  return made;
}

// Adds the operators of some kernels to a session's options: what ONNX Runtime calls in a custom-op library.
template <class... Kernels>
OrtStatus* register_ops(OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* found = base->GetApi(kApiVersion);
  if (found == nullptr)
    return base->GetApi(1)->CreateStatus(ORT_FAIL, "polc's operators need ONNX Runtime 1.21 or later");
  const Api api(found);
  return api.guard([&] {
    // One domain for all sessions, never released: sessions refer to it as long as they live.
    static OrtCustomOpDomain* const domain = [&] {
      OrtCustomOpDomain* polc = nullptr;
      api(api->CreateCustomOpDomain("polc", &polc));
      const auto add = [&](const auto& made) {
        for (const OrtCustomOp& op : made) api(api->CustomOpDomain_Add(polc, &op));
      };
      (add(ops<Kernels>()), ...);
      return polc;
    }();
    api(api->AddCustomOpDomain(options, domain));
  });
}

}  // namespace polc::ort
