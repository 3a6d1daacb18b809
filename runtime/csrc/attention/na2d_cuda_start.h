// Starting neighbourhood attention on a CUDA device, without CUDA's headers: what every wrapper of the kernel calls.
#pragma once

#include <cstdint>
#include <string>

namespace polc::na2d::cuda {

enum class Type { kFloat, kHalf };

// As Problem in na2d_cuda.cuh, with the types as values.
struct Request {
  Type type;  // of q, k, v and out
  const void* q;
  const void* k;
  const void* v;
  Type rpb_type;
  const void* rpb;  // or null
  void* out;
  int64_t batch, height, width, heads, dim;
  int64_t kernel;
  float scale;
};

enum class Status { kStarted, kRefused, kFailed };

struct Outcome {
  Status status;
  std::string message;  // why it did not start
};

// What is wrong with a request, or an empty string.
std::string check(const Request& request);

// Starts computing request.out on the current device and a stream (a cudaStream_t); all pointers are to its memory.
Outcome start(const Request& request, void* stream);

}  // namespace polc::na2d::cuda
