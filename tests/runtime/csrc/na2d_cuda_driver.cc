// The CUDA attention kernel on the CPU. As a library it computes one problem; as a program it makes random ones, and
// compares with a computation by definition in double precision, key by key. Arguments: problems, seed.
#include "na2d_cuda_emulation.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "visibility.h"

namespace {

using emulation::emulate;
using emulation::Random;
using polc::na2d::cuda::Bias;
using polc::na2d::cuda::Problem;

std::string refusal;

template <class T>
int compute(const Problem<T>& p, int64_t memory) {
  refusal = polc::na2d::cuda::check(p);
  if (!refusal.empty()) return 1;
  Random random(0);
  emulate(p, memory, random);
  return 0;
}

float number(float x) { return x; }
float number(__half x) { return __half2float(x); }

template <class T>
T rounded(float x) {
  if constexpr (std::is_same_v<T, float>)
    return x;
  else
    return __float2half_rn(x);
}

double exact_bias(const Bias& bias, int64_t i) {
  if (bias.values == nullptr) return 0.0;
  return bias.half ? number(static_cast<const __half*>(bias.values)[i]) : static_cast<const float*>(bias.values)[i];
}

int64_t pick(Random& random, std::initializer_list<int64_t> choices) {
  return choices.begin()[random() % choices.size()];
}

int64_t between(Random& random, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1));
}

template <class T>
std::unique_ptr<T[]> normal(Random& random, int64_t size, float deviation) {
  std::normal_distribution<float> distribution(0.0f, deviation);
  std::unique_ptr<T[]> values(new T[static_cast<size_t>(size)]);
  for (int64_t i = 0; i < size; ++i) values[i] = rounded<T>(distribution(random));
  return values;
}

// A query's result by definition, in `out`, and in `spread` that for the sizes of the values; gives the largest logit's
// size, which bounds the rounding of weights.
template <class T>
double by_definition(const Problem<T>& p, int64_t b, int64_t i, int64_t j, int64_t h, std::vector<double>& out,
                     std::vector<double>& spread) {
  const auto at = [&](int64_t r, int64_t c) { return (((b * p.height + r) * p.width + c) * p.heads + h) * p.dim; };
  const int64_t side = 2 * p.kernel - 1;
  const int64_t top = std::max<int64_t>(std::min(i - p.kernel / 2, p.height - p.kernel), 0);
  const int64_t left = std::max<int64_t>(std::min(j - p.kernel / 2, p.width - p.kernel), 0);
  std::vector<double> logits;
  std::vector<int64_t> keys;
  for (int64_t r = top; r < std::min(top + p.kernel, p.height); ++r)
    for (int64_t c = left; c < std::min(left + p.kernel, p.width); ++c) {
      double logit = 0.0;
      for (int64_t d = 0; d < p.dim; ++d) logit += double{number(p.q[at(i, j) + d])} * number(p.k[at(r, c) + d]);
      logit *= double{p.scale};
      logit += exact_bias(p.rpb, (h * side + r - i + p.kernel - 1) * side + c - j + p.kernel - 1);
      logits.push_back(logit);
      keys.push_back(at(r, c));
    }
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0, size = 1.0;
  std::fill(out.begin(), out.end(), 0.0);
  std::fill(spread.begin(), spread.end(), 0.0);
  for (size_t n = 0; n < keys.size(); ++n) {
    const double weight = std::exp(logits[n] - largest);
    size = std::max(size, std::abs(logits[n]));
    sum += weight;
    for (size_t d = 0; d < out.size(); ++d) {
      const double value = number(p.v[keys[n] + static_cast<int64_t>(d)]);
      out[d] += weight * value;
      spread[d] += weight * std::abs(value);
    }
  }
  for (size_t d = 0; d < out.size(); ++d) out[d] /= sum, spread[d] /= sum;
  return size;
}

// The largest error, as a multiple of float32's precision times the size of the logits; an error that the output's own
// precision, or that of rounded weights, explains counts as none.
template <class T>
double error_of(const Problem<T>& p, bool weights_rounded) {
  std::vector<double> expected(static_cast<size_t>(p.dim)), spread(expected.size());
  const double precision = std::is_same_v<T, float> ? 0.0 : 0x1p-11;
  double worst = 0.0;
  for (int64_t query = 0; query < p.batch * p.height * p.width * p.heads; ++query) {
    const int64_t h = query % p.heads, pixel = query / p.heads;
    const int64_t j = pixel % p.width, i = pixel / p.width % p.height, b = pixel / p.width / p.height;
    const double size = by_definition(p, b, i, j, h, expected, spread);
    for (int64_t d = 0; d < p.dim; ++d) {
      const double right = expected[static_cast<size_t>(d)];
      const double error = std::abs(number(p.out[query * p.dim + d]) - right);
      if (!(error < 1e30)) return 1e30;  // NaN too
      double allowed = precision * std::max(std::abs(right), 0x1p-14);
      if (weights_rounded) allowed += precision * (spread[static_cast<size_t>(d)] + std::abs(right));
      worst = std::max(worst, (error - allowed) / (1.2e-7 * size));
    }
  }
  return worst;
}

// Whether one random problem goes wrong.
template <class T>
bool fails(Random& random) {
  constexpr double kLimit = 60.0;
  Problem<T> p{};
  p.batch = between(random, 1, 2);
  p.height = between(random, 1, pick(random, {3, 20, 50}));
  p.width = between(random, 1, pick(random, {3, 20, 40}));
  p.heads = between(random, 1, 3);
  p.dim = pick(random, {16, 16, 32, 64});
  p.kernel = pick(random, {1, 3, 3, 3, 5, 7, 7, 7, 7, 13});
  p.scale = random() % 8 ? 1.0f / std::sqrt(static_cast<float>(p.dim)) : random() % 2 ? 0.0f : -0.3f;
  const int64_t size = p.batch * p.height * p.width * p.heads * p.dim;
  const float deviation = random() % 4 ? 1.0f : 4.0f;
  const auto q = normal<T>(random, size, deviation), k = normal<T>(random, size, deviation);
  const auto v = normal<T>(random, size, 1.0f), out = normal<T>(random, size, 0.0f);
  const int64_t biases = p.heads * (2 * p.kernel - 1) * (2 * p.kernel - 1);
  const auto rpb = normal<float>(random, biases, 1.0f);
  const auto half_rpb = normal<__half>(random, biases, 1.0f);
  std::memset(out.get(), 0xff, static_cast<size_t>(size) * sizeof(T));  // NaN: an output left out is found
  p.q = q.get(), p.k = k.get(), p.v = v.get(), p.out = out.get();
  if (random() % 4) p.rpb = random() % 2 ? Bias(rpb.get()) : Bias(half_rpb.get());
  const bool weights_rounded = emulate(p, pick(random, {0, 101376, 232448, 232448, 232448}), random);
  const double error = error_of(p, weights_rounded);
  if (error < kLimit) return false;
  std::printf("%zu bytes: error %.3g at [%ld,%ld,%ld,%ld,%ld], kernel %ld\n", sizeof(T), error, long(p.batch),
              long(p.height), long(p.width), long(p.heads), long(p.dim), long(p.kernel));
  return true;
}

}  // namespace

// Computes for float or half, with rpb in float, on a device with so many bytes of shared memory.
POLC_EXPORT int emulate_f32(const float* q, const float* k, const float* v, const float* rpb, float* out, int64_t batch,
                            int64_t height, int64_t width, int64_t heads, int64_t dim, int64_t kernel, float scale,
                            int64_t memory) {
  return compute<float>({q, k, v, rpb, out, batch, height, width, heads, dim, kernel, scale}, memory);
}

POLC_EXPORT int emulate_f16(const __half* q, const __half* k, const __half* v, const float* rpb, __half* out,
                            int64_t batch, int64_t height, int64_t width, int64_t heads, int64_t dim, int64_t kernel,
                            float scale, int64_t memory) {
  return compute<__half>({q, k, v, rpb, out, batch, height, width, heads, dim, kernel, scale}, memory);
}

// Why the last problem was refused.
POLC_EXPORT const char* emulation_refusal() { return refusal.c_str(); }

// Makes random problems, and gives the number of those that go wrong.
POLC_EXPORT int random_problems(int problems, uint64_t seed) {
  Random random(seed);
  int failed = 0;
  for (int i = 0; i < problems; ++i) failed += i % 2 ? fails<float>(random) : fails<__half>(random);
  std::printf("%d problems: %d failures\n", problems, failed);
  return failed;
}

int main(int count, char** arguments) {
  const int problems = count > 1 ? std::atoi(arguments[1]) : 100;
  const uint64_t seed = count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 0;
  return random_problems(problems, seed) == 0 ? 0 : 1;
}
