// Runs the CPU attention kernel and its gradient on random problems with every instruction set of this machine, and
// compares with a computation by definition in double precision, key by key. Arguments: problems, seed. Built by
// test_na2d_driver.py, and with sanitizers by runtime/csrc/attention/sanitize.sh: every array is exactly as long as it must be.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "na2d_cpu_backward.h"
#include "visibility.h"

POLC_EXPORT int polc_na2d_f32(const float* q, const float* k, const float* v, const float* rpb, float* out,
                              float* statistics, int64_t batch, int64_t height, int64_t width, int64_t heads,
                              int64_t dim, int64_t kernel, float scale, int threads);
POLC_EXPORT int polc_na2d_backward_f32(const float* q, const float* k, const float* v, const float* rpb,
                                       const float* out, const float* statistics, const float* grad, float* q_grad,
                                       float* k_grad, float* v_grad, float* rpb_grad, int64_t batch, int64_t height,
                                       int64_t width, int64_t heads, int64_t dim, int64_t kernel, float scale,
                                       int threads);

namespace {

using polc::na2d::BackwardProblem;
using polc::na2d::Problem;
using Random = std::mt19937_64;

int64_t pick(Random& random, std::initializer_list<int64_t> choices) {
  return choices.begin()[random() % choices.size()];
}

int64_t between(Random& random, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1));
}

// An array of exactly its length, NaN at first: an output left out is found.
class Floats {
 public:
  explicit Floats(int64_t size) : size_(static_cast<size_t>(size)), values_(new float[size_]) { clear(); }

  Floats(int64_t size, Random& random, float deviation) : Floats(size) {
    std::normal_distribution<float> distribution(0.0f, deviation);
    for (size_t i = 0; i < size_; ++i) values_[i] = distribution(random);
  }

  float* get() const { return values_.get(); }
  void clear() const { std::memset(get(), 0xff, size_ * sizeof(float)); }
  bool same_bits(const Floats& other) const { return std::memcmp(get(), other.get(), size_ * sizeof(float)) == 0; }

 private:
  size_t size_;
  std::unique_ptr<float[]> values_;
};

int64_t size_of(const Problem& p) { return p.batch * p.height * p.width * p.heads * p.dim; }
int64_t bias_size(const Problem& p) { return p.heads * (2 * p.kernel - 1) * (2 * p.kernel - 1); }

enum Result { kOut, kQueryGrad, kKeyGrad, kValueGrad, kBiasGrad, kResults };
constexpr const char* kNames[kResults] = {"out", "q_grad", "k_grad", "v_grad", "rpb_grad"};

// A result by definition, and how large the terms are that it is the sum of, which bounds its rounding.
struct Exact {
  std::vector<double> value, size;

  explicit Exact(int64_t length) : value(static_cast<size_t>(length)), size(value.size(), 1e-30) {}

  void add(int64_t at, double term, double term_size) {
    value[static_cast<size_t>(at)] += term;
    size[static_cast<size_t>(at)] += std::abs(term_size);
  }

  // The largest error, as a multiple of float32's precision times the size of the terms.
  double error_of(const float* found) const {
    double worst = 0.0;
    for (size_t i = 0; i < value.size(); ++i) {
      const double error = std::abs(double{found[i]} - value[i]);
      if (!(error < 1e30)) return 1e30;  // NaN too
      worst = std::max(worst, error / (1.2e-7 * size[i]));
    }
    return worst;
  }
};

// One key that a query attends to.
struct Pair {
  int64_t key, bias;  // where they lie
  double logit, weight = 0.0, weight_grad = 0.0, grad_size = 0.0;
};

class Definition {
 public:
  Definition(const Problem& p, const float* grad) : p_(p), grad_(grad) {
    for (int64_t b = 0; b < p.batch; ++b)
      for (int64_t i = 0; i < p.height; ++i)
        for (int64_t j = 0; j < p.width; ++j)
          for (int64_t h = 0; h < p.heads; ++h) add_query(at(b, i, j, h), pairs(b, i, j, h));
  }

  const Exact& operator[](int result) const { return results_[static_cast<size_t>(result)]; }

 private:
  int64_t at(int64_t b, int64_t i, int64_t j, int64_t h) const {
    return (((b * p_.height + i) * p_.width + j) * p_.heads + h) * p_.dim;
  }

  static double dot(const float* a, const float* b, int64_t size) {
    double sum = 0.0;
    for (int64_t d = 0; d < size; ++d) sum += double{a[d]} * double{b[d]};
    return sum;
  }

  std::vector<Pair> pairs(int64_t b, int64_t i, int64_t j, int64_t h) const {
    const int64_t side = 2 * p_.kernel - 1, query = at(b, i, j, h);
    const int64_t top = std::max<int64_t>(std::min(i - p_.kernel / 2, p_.height - p_.kernel), 0);
    const int64_t left = std::max<int64_t>(std::min(j - p_.kernel / 2, p_.width - p_.kernel), 0);
    std::vector<Pair> found;
    for (int64_t r = top; r < std::min(top + p_.kernel, p_.height); ++r)
      for (int64_t c = left; c < std::min(left + p_.kernel, p_.width); ++c) {
        const int64_t bias = (h * side + r - i + p_.kernel - 1) * side + c - j + p_.kernel - 1;
        const double logit = double{p_.scale} * dot(p_.q + query, p_.k + at(b, r, c, h), p_.dim);
        found.push_back({at(b, r, c, h), bias, logit + (p_.rpb == nullptr ? 0.0 : double{p_.rpb[bias]})});
      }
    return found;
  }

  void add_query(int64_t query, std::vector<Pair> pairs) {
    double largest = -1e300, logit_size = 1.0, sum = 0.0, mean = 0.0, mean_size = 0.0;
    for (const Pair& pair : pairs) {
      largest = std::max(largest, pair.logit);
      logit_size = std::max(logit_size, std::abs(pair.logit));
    }
    for (Pair& pair : pairs) sum += pair.weight = std::exp(pair.logit - largest);
    for (Pair& pair : pairs) {
      pair.weight /= sum;
      pair.weight_grad = dot(grad_ + query, p_.v + pair.key, p_.dim);
      for (int64_t d = 0; d < p_.dim; ++d)
        pair.grad_size += std::abs(double{grad_[query + d]} * double{p_.v[pair.key + d]});
      mean += pair.weight * pair.weight_grad;
      mean_size += pair.weight * pair.grad_size;
    }
    for (const Pair& pair : pairs) add_pair(query, pair, mean, logit_size, mean_size);
  }

  void add_pair(int64_t query, const Pair& pair, double mean, double logit_size, double mean_size) {
    const double logit_grad = pair.weight * (pair.weight_grad - mean);
    const double size = logit_size * pair.weight * (pair.grad_size + mean_size);
    const auto add = [&](Result result, int64_t at, double factor, double factor_size, float with) {
      results_[result].add(at, factor * double{with}, factor_size * double{with});
    };
    for (int64_t d = 0; d < p_.dim; ++d) {
      const double scale = p_.scale;
      add(kOut, query + d, pair.weight, logit_size * pair.weight, p_.v[pair.key + d]);
      add(kQueryGrad, query + d, scale * logit_grad, scale * size, p_.k[pair.key + d]);
      add(kKeyGrad, pair.key + d, scale * logit_grad, scale * size, p_.q[query + d]);
      add(kValueGrad, pair.key + d, pair.weight, logit_size * pair.weight, grad_[query + d]);
    }
    add(kBiasGrad, pair.bias, logit_grad, size, 1.0f);
  }

  const Problem& p_;
  const float* grad_;
  std::array<Exact, kResults> results_{Exact(size_of(p_)), Exact(size_of(p_)), Exact(size_of(p_)), Exact(size_of(p_)),
                                       Exact(bias_size(p_))};
};

// What the kernel writes.
struct Outputs {
  std::array<Floats, kResults> results;
  Floats statistics;

  explicit Outputs(const Problem& p)
      : results{Floats(size_of(p)), Floats(size_of(p)), Floats(size_of(p)), Floats(size_of(p)), Floats(bias_size(p))},
        statistics(size_of(p) / p.dim * 2) {}

  float* operator[](int result) const { return results[static_cast<size_t>(result)].get(); }

  void clear() const {
    for (const Floats& one : results) one.clear();
    statistics.clear();
  }
};

void compute(Problem p, const float* grad, const Outputs& to, const polc::na2d::Implementation& one) {
  const auto serial = [](int64_t count, const auto& body) {
    for (int64_t i = 0; i < count; ++i) body(i);
  };
  p.out = to[kOut], p.statistics = to.statistics.get();
  polc::na2d::forward(p, serial, one);
  float* bias_grad = p.rpb == nullptr ? nullptr : to[kBiasGrad];
  const BackwardProblem backward{p,         p.out, p.statistics, grad, to[kQueryGrad], to[kKeyGrad], to[kValueGrad],
                                 bias_grad};
  polc::na2d::backward(backward, serial, one);
}

// The same through the C functions; gives their status.
int compute(const Problem& p, const float* grad, const Outputs& to, int threads) {
  float* bias_grad = p.rpb == nullptr ? nullptr : to[kBiasGrad];
  const int status = polc_na2d_f32(p.q, p.k, p.v, p.rpb, to[kOut], to.statistics.get(), p.batch, p.height, p.width,
                                   p.heads, p.dim, p.kernel, p.scale, threads);
  return status + polc_na2d_backward_f32(p.q, p.k, p.v, p.rpb, to[kOut], to.statistics.get(), grad, to[kQueryGrad],
                                         to[kKeyGrad], to[kValueGrad], bias_grad, p.batch, p.height, p.width, p.heads,
                                         p.dim, p.kernel, p.scale, threads);
}

int wrong(const Problem& p, const Definition& exact, const Outputs& found, const char* name) {
  constexpr double kLimit = 60.0;
  int failed = 0;
  for (int result = 0; result < kResults; ++result) {
    if (result == kBiasGrad && p.rpb == nullptr) continue;
    const double error = exact[result].error_of(found[result]);
    if (error < kLimit) continue;
    std::printf("%s: error %.3g of %s at [%ld,%ld,%ld,%ld,%ld], kernel %ld\n", name, error, kNames[result],
                long(p.batch), long(p.height), long(p.width), long(p.heads), long(p.dim), long(p.kernel));
    ++failed;
  }
  return failed;
}

// Counts the ways in which one random problem goes wrong.
int failures(Random& random) {
  Problem p{};
  p.batch = between(random, 1, 2);
  p.height = between(random, 1, pick(random, {3, 12, 40, 75}));
  p.width = between(random, 1, pick(random, {3, 20, 75}));
  p.heads = between(random, 1, 6);
  p.dim = pick(random, {1, 3, 8, 16, 16, 20, 24, 32, 64});
  p.kernel = pick(random, {1, 3, 5, 7, 7, 9, 13});
  p.scale = 1.0f / std::sqrt(static_cast<float>(p.dim));
  const float deviation = random() % 4 ? 1.0f : 4.0f;
  const Floats q(size_of(p), random, deviation), k(size_of(p), random, deviation), v(size_of(p), random, 1.0f);
  const Floats rpb(bias_size(p), random, 1.0f), grad(size_of(p), random, 1.0f);
  p.q = q.get(), p.k = k.get(), p.v = v.get();
  p.rpb = random() % 4 ? rpb.get() : nullptr;
  const Definition exact(p, grad.get());
  const Outputs out(p), threaded(p);
  int failed = 0;
  for (const polc::na2d::Implementation& one : polc::na2d::implementations()) {
    out.clear();
    compute(p, grad.get(), out, one);
    failed += wrong(p, exact, out, one.name);
  }
  for (int threads = 1; threads <= 4; threads += 3) {
    threaded.clear();
    const int status = compute(p, grad.get(), threaded, threads);
    bool same = status == 0;
    for (size_t i = 0; i < kResults; ++i) same = same && threaded.results[i].same_bits(out.results[i]);
    if (same) continue;
    std::printf("%d threads give other bits, status %d\n", threads, status);
    ++failed;
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
