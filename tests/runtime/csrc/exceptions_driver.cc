// What leaves the operators' C interfaces where something inside throws. Prints a line for each failure; exits with 1
// where there are some.
#include <cstdio>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

#include "c_api.cc"
#include "ort_attention.h"

namespace {

std::string said;
int failures = 0;

void expect(bool holds, const char* what) {
  if (!holds) std::printf("%s: %s\n", what, said.c_str()), ++failures;
}

OrtStatus* create_status(polc::ort::OrtErrorCode, const char* message) {
  said = message;
  return reinterpret_cast<OrtStatus*>(&said);
}

template <class Error>
int status_of(const Error& error) {
  float value = 0;
  const Problem problem{&value, &value, &value, nullptr, &value, 1, 1, 1, 1, 1, 1, 1.0f};
  return guarded(problem, 2, 1.0, [&](const auto&) { throw error; });
}

}  // namespace

int main() {
  polc::ort::OrtApi table{};
  table.CreateStatus = create_status;
  const polc::ort::Api api(&table);
  expect(api.guard([] {}) == nullptr, "no error");
  expect(api.guard([] { throw std::bad_alloc(); }) != nullptr && said.find("out of memory") != said.npos, "bad_alloc");
  expect(api.guard([] { throw std::runtime_error("torn"); }) != nullptr && said == "torn", "runtime_error");
  expect(api.guard([] { throw 1; }) != nullptr && said.find("unknown error") != said.npos, "an int");
  expect(api.guard([&] { api.refuse("odd"); }) != nullptr && said.find("odd") != said.npos, "a refusal");

  expect(status_of(std::bad_alloc()) == 2, "bad_alloc in C");
  expect(status_of(std::runtime_error("torn")) == 3, "runtime_error in C");
  expect(status_of(1) == 3, "an int in C");

  const auto serial = [](int64_t count, const auto& body) {
    for (int64_t index = 0; index < count; ++index) body(index);
  };
  try {
    polc::na2d::run_units(3, 1, serial, [](int64_t index, float*) {
      if (index > 0) throw std::runtime_error(std::to_string(index));
    });
    expect(false, "a unit's error is lost");
  } catch (const std::runtime_error& error) {
    expect(std::strcmp(error.what(), "1") == 0, "another unit's error");
  }
  return failures > 0;
}
