// Compares ort_interface.h with ONNX Runtime's own header, of 1.21 or later: it compiles where they agree.
#include <onnxruntime_c_api.h>

#include <type_traits>

#include "ort_interface.h"

#pragma GCC diagnostic ignored "-Wignored-attributes"  // of the real header's functions

namespace {

namespace ours = polc::ort;

// A type of the real header's as ort_interface.h would have it: its own tables, integers for constants.
template <class T, bool = std::is_enum_v<T>>
struct As {
  using type = T;
};
template <class T>
struct As<T, true> {
  static_assert(sizeof(T) == sizeof(int), "constants are of the size of an int");
  using type = int;
};
template <>
struct As<const OrtApi*> {
  using type = const ours::OrtApi*;
};
template <>
struct As<const OrtCustomOp*> {
  using type = const ours::OrtCustomOp*;
};
template <class Result, class... Arguments>
struct As<Result (*)(Arguments...)> {
  using type = typename As<Result>::type (*)(typename As<Arguments>::type...);
};
template <class Result, class... Arguments>
struct As<Result (*)(Arguments...) noexcept> : As<Result (*)(Arguments...)> {};

template <class Ours, class Theirs>
constexpr bool kSame = std::is_same_v<typename As<Ours>::type, typename As<Theirs>::type>;

#define CHECK_MEMBER(table, name)                                                              \
  static_assert(offsetof(ours::table, name) == offsetof(table, name), #name " is elsewhere"); \
  static_assert(kSame<decltype(ours::table::name), decltype(table::name)>, #name " has another signature")
#define CHECK_CONSTANT(name) static_assert(int{ours::name} == int{name}, #name " has another value")

static_assert(ORT_API_VERSION >= ours::kApiVersion, "the header is older than the interface");
static_assert(sizeof(ours::OrtApi) <= sizeof(OrtApi), "a function is beyond the table's end");
static_assert(sizeof(ours::OrtApiBase) == sizeof(OrtApiBase), "OrtApiBase has another size");
static_assert(ORT_API_VERSION > ours::kApiVersion || sizeof(ours::OrtCustomOp) == sizeof(OrtCustomOp),
              "OrtCustomOp of the version that is declared has another size");

CHECK_CONSTANT(ORT_FAIL);
CHECK_CONSTANT(ORT_INVALID_ARGUMENT);
CHECK_CONSTANT(ORT_EP_FAIL);
CHECK_CONSTANT(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
CHECK_CONSTANT(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16);
CHECK_CONSTANT(INPUT_OUTPUT_REQUIRED);
CHECK_CONSTANT(INPUT_OUTPUT_OPTIONAL);
CHECK_CONSTANT(OrtMemTypeDefault);

CHECK_MEMBER(OrtApi, CreateStatus);
CHECK_MEMBER(OrtApi, CreateCustomOpDomain);
CHECK_MEMBER(OrtApi, CustomOpDomain_Add);
CHECK_MEMBER(OrtApi, AddCustomOpDomain);
CHECK_MEMBER(OrtApi, GetTensorMutableData);
CHECK_MEMBER(OrtApi, GetDimensionsCount);
CHECK_MEMBER(OrtApi, GetDimensions);
CHECK_MEMBER(OrtApi, GetTensorTypeAndShape);
CHECK_MEMBER(OrtApi, KernelInfoGetAttribute_float);
CHECK_MEMBER(OrtApi, KernelInfoGetAttribute_int64);
CHECK_MEMBER(OrtApi, KernelContext_GetInputCount);
CHECK_MEMBER(OrtApi, KernelContext_GetInput);
CHECK_MEMBER(OrtApi, KernelContext_GetOutput);
CHECK_MEMBER(OrtApi, ReleaseTensorTypeAndShapeInfo);
CHECK_MEMBER(OrtApi, KernelContext_GetGPUComputeStream);
CHECK_MEMBER(OrtApi, KernelContext_ParallelFor);

CHECK_MEMBER(OrtApiBase, GetApi);
CHECK_MEMBER(OrtApiBase, GetVersionString);

CHECK_MEMBER(OrtCustomOp, version);
CHECK_MEMBER(OrtCustomOp, CreateKernel);
CHECK_MEMBER(OrtCustomOp, GetName);
CHECK_MEMBER(OrtCustomOp, GetExecutionProviderType);
CHECK_MEMBER(OrtCustomOp, GetInputType);
CHECK_MEMBER(OrtCustomOp, GetInputTypeCount);
CHECK_MEMBER(OrtCustomOp, GetOutputType);
CHECK_MEMBER(OrtCustomOp, GetOutputTypeCount);
CHECK_MEMBER(OrtCustomOp, KernelCompute);
CHECK_MEMBER(OrtCustomOp, KernelDestroy);
CHECK_MEMBER(OrtCustomOp, GetInputCharacteristic);
CHECK_MEMBER(OrtCustomOp, GetOutputCharacteristic);
CHECK_MEMBER(OrtCustomOp, GetInputMemoryType);
CHECK_MEMBER(OrtCustomOp, GetVariadicInputMinArity);
CHECK_MEMBER(OrtCustomOp, GetVariadicInputHomogeneity);
CHECK_MEMBER(OrtCustomOp, GetVariadicOutputMinArity);
CHECK_MEMBER(OrtCustomOp, GetVariadicOutputHomogeneity);
CHECK_MEMBER(OrtCustomOp, CreateKernelV2);
CHECK_MEMBER(OrtCustomOp, KernelComputeV2);
CHECK_MEMBER(OrtCustomOp, InferOutputShapeFn);
CHECK_MEMBER(OrtCustomOp, GetStartVersion);
CHECK_MEMBER(OrtCustomOp, GetEndVersion);
CHECK_MEMBER(OrtCustomOp, GetMayInplace);
CHECK_MEMBER(OrtCustomOp, ReleaseMayInplace);
CHECK_MEMBER(OrtCustomOp, GetAliasMap);
CHECK_MEMBER(OrtCustomOp, ReleaseAliasMap);

}  // namespace
