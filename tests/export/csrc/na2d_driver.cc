// Runs the CPU attention kernel on random problems with every instruction set of this machine, and compares with a
// computation by definition in double precision, key by key. Arguments: problems, seed. Built by test_na2d_driver.py,
// and with sanitizers by export/csrc/sanitize.sh: every array is exactly as long as it must be.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "na2d_cpu.h"
#include "visibility.h"

POLC_EXPORT int polc_na2d_f32(const float* q, const float* k, const float* v, const float* rpb, float* out,
                              int64_t batch, int64_t height, int64_t width, int64_t heads, int64_t dim, int64_t kernel,
                              float scale, int threads);

namespace {

using polc::na2d::Problem;
using Floats = std::unique_ptr<float[]>;
using Random = std::mt19937_64;

int64_t pick(Random& random, std::initializer_list<int64_t> choices) {
  return choices.begin()[random() % choices.size()];
}

int64_t between(Random& random, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1));
}

Floats normal(Random& random, int64_t size, float deviation) {
  std::normal_distribution<float> distribution(0.0f, deviation);
  Floats values(new float[static_cast<size_t>(size)]);
  for (int64_t i = 0; i < size; ++i) values[i] = distribution(random);
  return values;
}

int64_t size_of(const Problem& p) { return p.batch * p.height * p.width * p.heads * p.dim; }

// A query's result by definition, in `out`; gives the largest logit's size, which bounds the rounding of weights.
double by_definition(const Problem& p, int64_t b, int64_t i, int64_t j, int64_t h, std::vector<double>& out) {
  const auto at = [&](int64_t r, int64_t c) { return (((b * p.height + r) * p.width + c) * p.heads + h) * p.dim; };
  const int64_t side = 2 * p.kernel - 1;
  const int64_t top = std::max<int64_t>(std::min(i - p.kernel / 2, p.height - p.kernel), 0);
  const int64_t left = std::max<int64_t>(std::min(j - p.kernel / 2, p.width - p.kernel), 0);
  std::vector<double> logits;
  std::vector<int64_t> keys;
  for (int64_t r = top; r < std::min(top + p.kernel, p.height); ++r)
    for (int64_t c = left; c < std::min(left + p.kernel, p.width); ++c) {
      double logit = 0.0;
      for (int64_t d = 0; d < p.dim; ++d) logit += double{p.q[at(i, j) + d]} * double{p.k[at(r, c) + d]};
      logit *= double{p.scale};
      if (p.rpb != nullptr) logit += double{p.rpb[(h * side + r - i + p.kernel - 1) * side + c - j + p.kernel - 1]};
      logits.push_back(logit);
      keys.push_back(at(r, c));
    }
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0, size = 1.0;
  std::fill(out.begin(), out.end(), 0.0);
  for (size_t n = 0; n < keys.size(); ++n) {
    const double weight = std::exp(logits[n] - largest);
    size = std::max(size, std::abs(logits[n]));
    sum += weight;
    for (int64_t d = 0; d < p.dim; ++d) out[static_cast<size_t>(d)] += weight * double{p.v[keys[n] + d]};
  }
  for (double& x : out) x /= sum;
  return size;
}

// The largest error, as a multiple of float32's precision times the size of the logits.
double error_of(const Problem& p) {
  std::vector<double> expected(static_cast<size_t>(p.dim));
  double worst = 0.0;
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t i = 0; i < p.height; ++i)
      for (int64_t j = 0; j < p.width; ++j)
        for (int64_t h = 0; h < p.heads; ++h) {
          const double size = by_definition(p, b, i, j, h, expected);
          const float* out = p.out + (((b * p.height + i) * p.width + j) * p.heads + h) * p.dim;
          for (int64_t d = 0; d < p.dim; ++d) {
            const double error = std::abs(double{out[d]} - expected[static_cast<size_t>(d)]);
            if (!(error < 1e30)) return 1e30;  // NaN too
            worst = std::max(worst, error / (1.2e-7 * size));
          }
        }
  return worst;
}

bool fails(Problem p, const char* name) {
  constexpr double kLimit = 60.0;
  const double error = error_of(p);
  if (error < kLimit) return false;
  std::printf("%s: error %.3g at [%ld,%ld,%ld,%ld,%ld], kernel %ld\n", name, error, long(p.batch), long(p.height),
              long(p.width), long(p.heads), long(p.dim), long(p.kernel));
  return true;
}

// Counts the ways in which one random problem goes wrong.
int failures(Random& random) {
  Problem p{};
  p.batch = between(random, 1, 2);
  p.height = between(random, 1, pick(random, {3, 12, 40}));
  p.width = between(random, 1, pick(random, {3, 20, 75}));
  p.heads = between(random, 1, 6);
  p.dim = pick(random, {1, 3, 8, 16, 16, 20, 24, 32, 64});
  p.kernel = pick(random, {1, 3, 5, 7, 7, 9, 13});
  p.scale = 1.0f / std::sqrt(static_cast<float>(p.dim));
  const float deviation = random() % 4 ? 1.0f : 4.0f;
  const Floats q = normal(random, size_of(p), deviation), k = normal(random, size_of(p), deviation);
  const Floats v = normal(random, size_of(p), 1.0f);
  const Floats rpb = normal(random, p.heads * (2 * p.kernel - 1) * (2 * p.kernel - 1), 1.0f);
  p.q = q.get(), p.k = k.get(), p.v = v.get();
  p.rpb = random() % 4 ? rpb.get() : nullptr;
  const size_t bytes = static_cast<size_t>(size_of(p)) * sizeof(float);
  const auto serial = [](int64_t count, const auto& body) {
    for (int64_t i = 0; i < count; ++i) body(i);
  };
  int failed = 0;
  Floats out(new float[static_cast<size_t>(size_of(p))]);
  for (const polc::na2d::Implementation& one : polc::na2d::implementations()) {
    std::memset(out.get(), 0xff, bytes);  // NaN: an output left out is found
    p.out = out.get();
    polc::na2d::forward(p, serial, one);
    failed += fails(p, one.name);
  }
  const Floats threaded(new float[static_cast<size_t>(size_of(p))]);
  for (int threads = 1; threads <= 4; threads += 3) {
    const int status = polc_na2d_f32(p.q, p.k, p.v, p.rpb, threaded.get(), p.batch, p.height, p.width, p.heads, p.dim,
                                     p.kernel, p.scale, threads);
    if (status != 0 || std::memcmp(threaded.get(), out.get(), bytes) != 0) {
      std::printf("%d threads give other bits, status %d\n", threads, status);
      ++failed;
    }
  }
  return failed;
}

}  // namespace

int main(int count, char** arguments) {
  const int problems = count > 1 ? std::atoi(arguments[1]) : 100;
  Random random(count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 0);
  int failed = 0;
  for (int i = 0; i < problems; ++i) failed += failures(random);
  for (const polc::na2d::Implementation& one : polc::na2d::implementations()) std::printf("%s ", one.name);
  std::printf("on %d problems: %d failures\n", problems, failed);
  return failed == 0 ? 0 : 1;
}
