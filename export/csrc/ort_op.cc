// ONNX Runtime custom-op library: NeighborhoodAttention2D of domain `polc`, version 1, on the CPU.
//
// Inputs q, k, v [batch, height, width, heads, dim] and, optionally, rpb [heads, 2k-1, 2k-1], float32; attributes
// kernel_size and scale; output like q. Registered for a session, it takes the place of the portable body that an
// exported model carries under the same name. Built against the C header alone, and nothing is linked.
#include <onnxruntime_c_api.h>

#include <array>
#include <climits>
#include <cstdint>
#include <new>
#include <string>
#include <vector>

#include "na2d_cpu.h"
#include "visibility.h"

namespace {

// The oldest runtime's interface: asking for the header's own version would refuse older runtimes for nothing.
constexpr uint32_t kApiVersion = 21;
static_assert(ORT_API_VERSION >= kApiVersion, "ONNX Runtime's headers are older than 1.21");

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

  [[noreturn]] void refuse(const std::string& message) const {
    throw Failure{api_->CreateStatus(ORT_INVALID_ARGUMENT, ("NeighborhoodAttention2D: " + message).c_str())};
  }

  // Runs a body that may throw, as the runtime's callbacks must not.
  template <class Body>
  OrtStatus* guard(Body&& body) const {
    try {
      body();
      return nullptr;
    } catch (const Failure& failure) {
      return failure.status;
    } catch (const std::bad_alloc&) {
      return api_->CreateStatus(ORT_FAIL, "NeighborhoodAttention2D: out of memory");
    }
  }

 private:
  const OrtApi* api_;
};

std::string text(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? "," : "") + std::to_string(shape[i]);
  return out + "]";
}

class Kernel {
 public:
  Kernel(const Api& api, const OrtKernelInfo* info) : api_(api) {
    api_(api_->KernelInfoGetAttribute_int64(info, "kernel_size", &kernel_size_));
    api_(api_->KernelInfoGetAttribute_float(info, "scale", &scale_));
  }

  const Api& api() const { return api_; }

  void compute(OrtKernelContext* context) const {
    std::array<std::vector<int64_t>, kRequiredInputs> shapes;
    std::array<const float*, kRequiredInputs> data;
    for (size_t i = 0; i < kRequiredInputs; ++i) data[i] = input(context, i, shapes[i]);
    const std::vector<int64_t>& shape = shapes[0];
    if (shape.size() != 5 || shapes[1] != shape || shapes[2] != shape)
      api_.refuse("expected q, k, v of one shape [batch,height,width,heads,dim], got " + text(shape) + ", " +
                  text(shapes[1]) + ", " + text(shapes[2]));
    polc::na2d::Problem problem{data[0],  data[1],  data[2],  bias(context, shape[3]), nullptr,      shape[0],
                                shape[1], shape[2], shape[3], shape[4],                kernel_size_, scale_};
    if (const std::string wrong = polc::na2d::check(problem); !wrong.empty()) api_.refuse(wrong);
    OrtValue* out = nullptr;
    api_(api_->KernelContext_GetOutput(context, 0, shape.data(), shape.size(), &out));
    api_(api_->GetTensorMutableData(out, reinterpret_cast<void**>(&problem.out)));
    polc::na2d::forward(problem, [&](int64_t count, const auto& body) { parallel_for(context, count, body); });
  }

 private:
  // An input's data and shape; null for an input left out.
  const float* input(const OrtKernelContext* context, size_t index, std::vector<int64_t>& shape) const {
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
    return static_cast<const float*>(data);
  }

  const float* bias(const OrtKernelContext* context, int64_t heads) const {
    std::vector<int64_t> shape;
    const float* data = input(context, kBias, shape);
    const std::vector<int64_t> expected{heads, 2 * kernel_size_ - 1, 2 * kernel_size_ - 1};
    if (data != nullptr && shape != expected)
      api_.refuse("expected rpb of shape " + text(expected) + ", got " + text(shape));
    return data;
  }

  // On the session's own threads.
  template <class Body>
  void parallel_for(const OrtKernelContext* context, int64_t count, const Body& body) const {
    const auto call = [](void* data, size_t index) { (*static_cast<const Body*>(data))(static_cast<int64_t>(index)); };
    api_(api_->KernelContext_ParallelFor(context, call, static_cast<size_t>(count), 0, const_cast<Body*>(&body)));
  }

  const Api api_;
  int64_t kernel_size_ = 0;
  float scale_ = 0.0f;
};

OrtStatus* create_kernel(const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
  return Api(api).guard([&] { *kernel = new Kernel(Api(api), info); });
}

OrtStatus* compute(void* data, OrtKernelContext* context) {
  const Kernel& kernel = *static_cast<const Kernel*>(data);
  return kernel.api().guard([&] { kernel.compute(context); });
}

const OrtCustomOp& attention_op() {
  static const OrtCustomOp op = [] {
    // No InferOutputShapeFn: the shapes it would pass on have symbolic sizes without names, which the runtime takes for
    // one size and then shares buffers between tensors of different shapes.
    OrtCustomOp made{};
    made.version = kApiVersion;
    made.GetName = [](const OrtCustomOp*) { return "NeighborhoodAttention2D"; };
    made.GetExecutionProviderType = [](const OrtCustomOp*) { return "CPUExecutionProvider"; };
    made.GetInputTypeCount = [](const OrtCustomOp*) { return kRequiredInputs + 1; };
    made.GetInputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
    made.GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
      return index < kRequiredInputs ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
    };
    made.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
    made.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t{1}; };
    made.GetOutputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
    made.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
    made.GetStartVersion = [](const OrtCustomOp*) { return 1; };
    made.GetEndVersion = [](const OrtCustomOp*) { return INT_MAX; };
    made.CreateKernelV2 = &create_kernel;
    made.KernelComputeV2 = &compute;
    made.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
    return made;
  }();
  return op;
}

// One domain for all sessions, never released: sessions refer to it as long as they live.
OrtCustomOpDomain* domain(const Api& api) {
  static OrtCustomOpDomain* const made = [&] {
    OrtCustomOpDomain* polc = nullptr;
    api(api->CreateCustomOpDomain("polc", &polc));
    api(api->CustomOpDomain_Add(polc, &attention_op()));
    return polc;
  }();
  return made;
}

}  // namespace

// What ONNX Runtime calls in a custom-op library.
POLC_EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* found = base->GetApi(kApiVersion);
  if (found == nullptr)
    return base->GetApi(1)->CreateStatus(ORT_FAIL, "polc's operators need ONNX Runtime 1.21 or later");
  const Api api(found);
  return api.guard([&] { api(api->AddCustomOpDomain(options, domain(api))); });
}
