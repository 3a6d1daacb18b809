// Runs one TorchScript graph of a bundle with plain libtorch. Build command: CMakeLists.txt.
//
//   run_graph GRAPH.ts OUT INPUT SHAPE [INPUT SHAPE]...
//
// An INPUT is a file of raw little-endian float32, SHAPE its sizes: 1,3,192,256. Inputs come in the order of
// the manifest. The outputs go to OUT0.f32, OUT1.f32, ...; a line each on standard output gives the shape.
#include <torch/script.h>

#include <exception>
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

std::vector<int64_t> parse_shape(const std::string& text) {
  std::vector<int64_t> shape;
  std::istringstream stream(text);
  for (std::string size; std::getline(stream, size, ',');) shape.push_back(std::stoll(size));
  return shape;
}

torch::Tensor read_tensor(const std::string& path, const std::vector<int64_t>& shape) {
  torch::Tensor tensor = torch::empty(shape, torch::kFloat32);
  const auto bytes = static_cast<std::streamsize>(tensor.nbytes());
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file || file.tellg() != bytes) {
    throw std::runtime_error(path + ": expected a file of " + std::to_string(bytes) + " bytes");
  }
  file.seekg(0);
  file.read(static_cast<char*>(tensor.data_ptr()), bytes);
  return tensor;
}

void write_tensor(const std::string& path, const torch::Tensor& value) {
  const torch::Tensor tensor = value.contiguous();
  std::ofstream file(path, std::ios::binary);
  file.write(static_cast<const char*>(tensor.data_ptr()), static_cast<std::streamsize>(tensor.nbytes()));
  if (!file) throw std::runtime_error(path + ": cannot be written");
  std::cout << path << ' ' << tensor.sizes() << '\n';
}

void run(const std::vector<std::string>& arguments) {
  c10::InferenceMode guard;
  torch::jit::Module graph = torch::jit::load(arguments[0], torch::kCPU);
  std::vector<c10::IValue> inputs;
  for (size_t i = 2; i < arguments.size(); i += 2) {
    inputs.emplace_back(read_tensor(arguments[i], parse_shape(arguments[i + 1])));
  }
  const c10::IValue result = graph.forward(inputs);
  if (result.isTensor()) return write_tensor(arguments[1] + "0.f32", result.toTensor());
  const auto& outputs = result.toTupleRef().elements();
  for (size_t i = 0; i < outputs.size(); ++i) {
    write_tensor(arguments[1] + std::to_string(i) + ".f32", outputs[i].toTensor());
  }
}

}  // namespace

int main(int count, char** values) {
  const std::vector<std::string> arguments(values + 1, values + count);
  if (arguments.size() < 4 || arguments.size() % 2 != 0) {
    std::cerr << "usage: run_graph GRAPH.ts OUT INPUT SHAPE [INPUT SHAPE]...\n";
    return 2;
  }
  try {
    run(arguments);
  } catch (const std::exception& error) {
    std::cerr << "run_graph: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
