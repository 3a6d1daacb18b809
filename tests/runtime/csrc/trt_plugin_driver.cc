// Stands in for TensorRT: loads the plugin's library and calls it in the order a builder and an engine do. A library of
// C functions for tests; built with the headers of the TensorRT that the plugin was built with.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "visibility.h"

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

using namespace nvinfer1;

namespace {

#if NV_TENSORRT_MAJOR >= 10
using Plugin = IPluginV3;
using Creator = IPluginCreatorV3One;
using Base = IPluginCreatorInterface;
constexpr const char* kEntry = "getCreators";
using FormatDesc = DynamicPluginTensorDesc;
#else
using Plugin = IPluginV2DynamicExt;
using Creator = IPluginCreator;
using Base = IPluginCreator;
constexpr const char* kEntry = "getPluginCreators";
using FormatDesc = PluginTensorDesc;
#endif

std::string errors;

class Logger : public ILogger, public ILoggerFinder {
  void log(Severity, const char* message) noexcept override { errors += std::string(message) + "\n"; }
  ILogger* findLogger() override { return this; }
};

class Builder : public IExprBuilder {};

Logger logger;
Creator* creator = nullptr;

DataType type_of(int32_t type) { return type == 0 ? DataType::kFLOAT : type == 1 ? DataType::kHALF : DataType::kINT32; }

PluginTensorDesc describe(int32_t type, const int32_t* sizes, int32_t rank) {
  PluginTensorDesc desc{};
  desc.type = type_of(type);
  desc.format = TensorFormat::kLINEAR;
  desc.dims.nbDims = rank;
  for (int32_t i = 0; i < rank; ++i) desc.dims.d[i] = sizes[i];
  return desc;
}

DynamicPluginTensorDesc at_any_size(PluginTensorDesc desc) {
  DynamicPluginTensorDesc made{};
  made.min = made.max = desc.dims;
  if (desc.dims.nbDims == 5) desc.dims.d[1] = desc.dims.d[2] = -1;
  made.desc = desc;
  return made;
}

template <class Desc>
void set(Desc& target, const PluginTensorDesc& desc) {
  if constexpr (std::is_same_v<Desc, PluginTensorDesc>)
    target = desc;
  else
    target.desc = desc;
}

#if NV_TENSORRT_MAJOR >= 10
IPluginV3OneBuild& build(Plugin* plugin) {
  return *static_cast<IPluginV3OneBuild*>(plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
}
IPluginV3OneRuntime& runtime(Plugin* plugin) {
  return *static_cast<IPluginV3OneRuntime*>(plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}
#else
IPluginV2DynamicExt& build(Plugin* plugin) { return *plugin; }
#endif

}  // namespace

// The TensorRT that the headers are of.
POLC_EXPORT int major_version() { return NV_TENSORRT_MAJOR; }

// Loads the library; gives its creator's name, version, namespace and fields, or an empty text.
POLC_EXPORT const char* open_plugin(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return "";
  reinterpret_cast<void (*)(ILoggerFinder*)>(dlsym(library, "setLoggerFinder"))(&logger);
  int32_t count = 0;
  Base* const* list = reinterpret_cast<Base* const* (*)(int32_t&)>(dlsym(library, kEntry))(count);
  if (count != 1) return "";
  creator = static_cast<Creator*>(list[0]);
  static std::string said;
  said = std::string(creator->getPluginName()) + " " + creator->getPluginVersion() + " '" +
         creator->getPluginNamespace() + "'";
  const PluginFieldCollection* fields = creator->getFieldNames();
  for (int32_t i = 0; i < fields->nbFields; ++i)
    said += std::string(" ") + fields->fields[i].name + ":" + std::to_string(int(fields->fields[i].type));
  return said.c_str();
}

// What was logged since the last call.
POLC_EXPORT const char* take_errors() {
  static std::string said;
  said = std::exchange(errors, {});
  return said.c_str();
}

// A plugin as the ONNX parser makes it; null where it refuses. Without a scale field if `scale` is negative.
POLC_EXPORT void* create(int32_t kernel_size, float scale) {
  const PluginField fields[] = {{"kernel_size", &kernel_size, PluginFieldType::kINT32, 1},
                                {"scale", &scale, PluginFieldType::kFLOAT32, 1}};
  const PluginFieldCollection collection{scale < 0 ? 1 : 2, fields};
#if NV_TENSORRT_MAJOR >= 10
  return creator->createPlugin("layer", &collection, TensorRTPhase::kBUILD);
#else
  return static_cast<Plugin*>(creator->createPlugin("layer", &collection));
#endif
}

// Whether the types (0 float, 1 half, 2 int32) of inputs and output are supported.
POLC_EXPORT int supports(void* plugin, const int32_t* types, int32_t inputs, int32_t linear) {
  const int32_t sizes[] = {1, 8, 8, 2, 16};
  std::vector<FormatDesc> tensors(static_cast<size_t>(inputs) + 1);
  for (int32_t i = 0; i <= inputs; ++i) {
    PluginTensorDesc desc = describe(types[i], sizes, 5);
    if (!linear) desc.format = TensorFormat::kCHW4;
    set(tensors[static_cast<size_t>(i)], desc);
  }
  for (int32_t i = 0; i <= inputs; ++i)
    if (!build(static_cast<Plugin*>(plugin)).supportsFormatCombination(i, tensors.data(), inputs, 1)) return 0;
  return 1;
}

// Whether the output has the first input's very dimensions and its type.
POLC_EXPORT int output_is_like_q(void* plugin, int32_t inputs) {
  alignas(8) std::array<char, 64> places{};  // of dimensions, which are never looked into
  std::vector<DimsExprs> dims(static_cast<size_t>(inputs));
  size_t next = 0;
  for (DimsExprs& one : dims) {
    one.nbDims = 5;
    for (int32_t d = 0; d < 5; ++d) one.d[d] = reinterpret_cast<const IDimensionExpr*>(&places[next++]);
  }
  Builder builder;
  const std::vector<DataType> types{DataType::kHALF, DataType::kHALF, DataType::kHALF, DataType::kFLOAT};
  auto& one = build(static_cast<Plugin*>(plugin));
#if NV_TENSORRT_MAJOR >= 10
  DimsExprs out{};
  DataType type{};
  if (one.getOutputShapes(dims.data(), inputs, nullptr, 0, &out, 1, builder) != 0) return 0;
  one.getOutputDataTypes(&type, 1, types.data(), inputs);
#else
  const DimsExprs out = one.getOutputDimensions(0, dims.data(), inputs, builder);
  const DataType type = one.getOutputDataType(0, types.data(), inputs);
#endif
  return out.nbDims == 5 && std::equal(out.d, out.d + 5, dims[0].d) && type == DataType::kHALF;
}

// Builds a layer for any height and width, takes it through a serialised engine into an execution context, and runs it
// at one size. Types 0 for float, 1 for half; `biases` is the rpb's rank-3 shape; rpb may be null. Gives 0, or the step
// that failed.
POLC_EXPORT int attend(void* made, int32_t type, const void* q, const void* k, const void* v, int32_t rpb_type,
                       const void* rpb, const int32_t* biases, void* out, const int32_t* sizes) {
  auto* plugin = static_cast<Plugin*>(made);
  std::vector<PluginTensorDesc> in(3, describe(type, sizes, 5));
  if (rpb != nullptr) in.push_back(describe(rpb_type, biases, 3));
  const auto inputs = static_cast<int32_t>(in.size());
  std::vector<DynamicPluginTensorDesc> any;
  for (const PluginTensorDesc& desc : in) any.push_back(at_any_size(desc));
  const void* const data[] = {q, k, v, rpb};
  void* const result[] = {out};
#if NV_TENSORRT_MAJOR >= 10
  Plugin* building = plugin->clone();
  if (build(building).configurePlugin(any.data(), inputs, any.data(), 1) != 0) return 1;
  const PluginFieldCollection* fields = runtime(building).getFieldsToSerialize();
  Plugin* engine = creator->createPlugin("layer", fields, TensorRTPhase::kRUNTIME);
  delete building;
  if (engine == nullptr) return 2;
  Plugin* context = runtime(engine).attachToContext(nullptr);
  delete engine;
  int step = runtime(context).onShapeChange(in.data(), inputs, in.data(), 1) != 0 ? 3 : 0;
  if (step == 0 && runtime(context).enqueue(in.data(), in.data(), data, result, nullptr, nullptr) != 0) step = 4;
  delete context;
  return step;
#else
  Plugin* building = plugin->clone();
  building->configurePlugin(any.data(), inputs, any.data(), 1);
  if (!errors.empty()) return 1;
  std::vector<char> bytes(building->getSerializationSize());
  building->serialize(bytes.data());
  building->destroy();
  auto* engine = static_cast<Plugin*>(creator->deserializePlugin("layer", bytes.data(), bytes.size()));
  if (engine == nullptr || creator->deserializePlugin("layer", bytes.data(), bytes.size() - 1) != nullptr) return 2;
  errors.clear();
  Plugin* context = engine->clone();
  engine->destroy();
  if (context->initialize() != 0) return 3;
  const int step = context->enqueue(in.data(), in.data(), data, result, nullptr, nullptr) != 0 ? 4 : 0;
  context->terminate();
  context->destroy();
  return step;
#endif
}
