// TensorRT plugin NeighborhoodAttention2D, version 1, over the CUDA kernels: IPluginV3 from TensorRT 10 on,
// IPluginV2DynamicExt before.
//
// Inputs q, k, v [batch, height, width, heads, dim], float or half, and optionally rpb [heads, 2k-1, 2k-1]; fields
// kernel_size and scale; output like q. TensorRT 10 takes rpb as the network has it, float or half; TensorRT 8 brings
// it to float. The library is loaded by IPluginRegistry::loadLibrary and needs nothing of libnvinfer.
#include <NvInferRuntime.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "na2d_cuda_start.h"
#include "visibility.h"

namespace {

using namespace nvinfer1;
using polc::na2d::cuda::Request;
using polc::na2d::cuda::Type;

constexpr const char* kName = "NeighborhoodAttention2D";
constexpr const char* kVersion = "1";
constexpr int32_t kBias = 3;  // the input after q, k, v
constexpr int32_t kRank = 5, kBiasRank = 3;
constexpr bool kTypesAreGiven = NV_TENSORRT_MAJOR >= 10;  // by the network; else the builder asks for each layer's

ILoggerFinder* logger_finder = nullptr;

// Tells TensorRT's logger, or where it gave none the standard error output.
void log_error(const char* message) {
  ILogger* const logger = logger_finder == nullptr ? nullptr : logger_finder->findLogger();
  if (logger == nullptr)
    std::fprintf(stderr, "%s: %s\n", kName, message);
  else
    logger->log(ILogger::Severity::kERROR, (std::string(kName) + ": " + message).c_str());
}

// Runs a body that may throw, as TensorRT's callbacks must not; gives `failed` where it does.
template <class Result, class Body>
Result guard(Result failed, const Body& body) noexcept {
  try {
    return body();
  } catch (const std::exception& error) {
    log_error(error.what());
    return failed;
  } catch (...) {
    log_error("unknown error");
    return failed;
  }
}

void demand(bool holds, const std::string& message) {
  if (!holds) throw std::invalid_argument(message);
}

std::string text(const Dims& dims) {
  std::string out = "[";
  for (int32_t i = 0; i < dims.nbDims; ++i) out += (i ? "," : "") + std::to_string(dims.d[i]);
  return out + "]";
}

const PluginTensorDesc& tensor(const PluginTensorDesc& desc) { return desc; }
const PluginTensorDesc& tensor(const DynamicPluginTensorDesc& desc) { return desc.desc; }

// Whether two sizes can be one; an unknown one is negative.
bool agree(int64_t a, int64_t b) { return a == b || a < 0 || b < 0; }

// One layer: what the network says of it.
struct Layer {
  int32_t kernel_size = 0;
  float scale = 0.0f;
  int32_t inputs = kBias + 1;  // once TensorRT has told

  // The layer as the kernel sees it, without its memory; a size not known yet is 1. Throws where the kernel does not
  // take it.
  template <class Desc>
  Request request(const Desc* in) const {
    const auto type = [&](int32_t i) { return tensor(in[i]).type == DataType::kHALF ? Type::kHalf : Type::kFloat; };
    const Dims& q = tensor(in[0]).dims;
    for (int32_t i = 0; i < kBias; ++i) {
      const Dims& dims = tensor(in[i]).dims;
      bool fits = dims.nbDims == kRank && q.nbDims == kRank;
      for (int32_t d = 0; fits && d < kRank; ++d) fits = agree(dims.d[d], q.d[d]);
      demand(fits, "expected q, k, v of one shape [batch,height,width,heads,dim], got " + text(q) + ", " + text(dims));
    }
    if (inputs > kBias) {
      const Dims& rpb = tensor(in[kBias]).dims;
      const int64_t side = 2 * int64_t{kernel_size} - 1;
      demand(rpb.nbDims == kBiasRank && agree(rpb.d[0], q.d[3]) && agree(rpb.d[1], side) && agree(rpb.d[2], side),
             "expected rpb of shape [" + std::to_string(q.d[3]) + "," + std::to_string(side) + "," +
                 std::to_string(side) + "], got " + text(rpb));
    }
    const auto size = [&](int32_t d) { return q.d[d] < 0 ? int64_t{1} : int64_t{q.d[d]}; };
    Request made{};
    made.type = type(0);
    made.rpb_type = inputs > kBias ? type(kBias) : Type::kFloat;
    made.batch = size(0), made.height = size(1), made.width = size(2), made.heads = size(3);
    made.dim = q.d[4] < 0 ? 16 : int64_t{q.d[4]};
    made.kernel = kernel_size;
    made.scale = scale;
    const std::string wrong = polc::na2d::cuda::check(made);
    demand(wrong.empty(), wrong);
    return made;
  }

  void start(const PluginTensorDesc* in, const void* const* data, void* const* out, cudaStream_t stream) const {
    Request made = request(in);
    made.q = data[0], made.k = data[1], made.v = data[2];
    made.rpb = inputs > kBias ? data[kBias] : nullptr;
    made.out = out[0];
    const polc::na2d::cuda::Outcome outcome = polc::na2d::cuda::start(made, stream);
    demand(outcome.status == polc::na2d::cuda::Status::kStarted, outcome.message);
  }
};

void check_count(int32_t inputs) {
  demand(inputs == kBias || inputs == kBias + 1,
         "expected the inputs q, k, v and optionally rpb, got " + std::to_string(inputs));
}

// Whether a tensor may have such a type, given those of the tensors before it; the last one is the output.
template <class Desc>
bool supports(int32_t position, const Desc* tensors, int32_t inputs) {
  const PluginTensorDesc& one = tensor(tensors[position]);
  if (one.format != TensorFormat::kLINEAR) return false;
  const bool floating = one.type == DataType::kFLOAT || one.type == DataType::kHALF;
  if (position == 0) return floating;
  if (position == kBias && inputs > kBias) return kTypesAreGiven ? floating : one.type == DataType::kFLOAT;
  return one.type == tensor(tensors[0]).type;
}

// A layer from the fields of an ONNX node or a serialised plugin; throws where one is missing or wrong.
Layer layer_of(const PluginFieldCollection* fields) {
  Layer made;
  bool has_size = false, has_scale = false;
  for (int32_t i = 0; fields != nullptr && i < fields->nbFields; ++i) {
    const PluginField& field = fields->fields[i];
    const std::string name = field.name;
    if (field.data == nullptr || field.length != 1) continue;
    if (name == "kernel_size" && field.type == PluginFieldType::kINT32) {
      made.kernel_size = *static_cast<const int32_t*>(field.data);
      has_size = true;
    } else if (name == "scale" && field.type == PluginFieldType::kFLOAT32) {
      made.scale = *static_cast<const float*>(field.data);
      has_scale = true;
    }
  }
  demand(has_size, "expected a field kernel_size, one int32");
  demand(has_scale, "expected a field scale, one float32");
  Request smallest{};
  smallest.dim = 16;
  smallest.kernel = made.kernel_size;
  const std::string wrong = polc::na2d::cuda::check(smallest);
  demand(wrong.empty(), wrong);
  return made;
}

const PluginFieldCollection* field_names() {
  static const PluginField names[] = {{"kernel_size", nullptr, PluginFieldType::kINT32, 1},
                                      {"scale", nullptr, PluginFieldType::kFLOAT32, 1}};
  static const PluginFieldCollection collection{2, names};
  return &collection;
}

#if NV_TENSORRT_MAJOR >= 10
#include "trt_plugin_v3.inc"
#else
#include "trt_plugin_v2.inc"
#endif

Creator creator;

}  // namespace

// TensorRT gives the plugins of a library a way to its loggers.
POLC_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { logger_finder = finder; }

// What IPluginRegistry::loadLibrary registers: from TensorRT 10 on by the first name, before by the second.
#if NV_TENSORRT_MAJOR >= 10
POLC_EXPORT IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static IPluginCreatorInterface* const creators[] = {&creator};
#else
POLC_EXPORT IPluginCreator* const* getPluginCreators(int32_t& count) {
  static IPluginCreator* const creators[] = {&creator};
#endif
  count = 1;
  return creators;
}
