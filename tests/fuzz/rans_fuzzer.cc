// libFuzzer target for runtime/csrc/coder/rans.h: any tables, row indexes and stream end in symbols or in Error.
//
//     clang++ -std=c++17 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
//         -I runtime/csrc tests/fuzz/rans_fuzzer.cc -o rans_fuzzer
//
// The first byte chooses between a sound table of widths and arrays that may be anything. What a stream decodes
// to is coded again, and must decode to the same.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "rans.h"

namespace {

using polc::rans::Decoder;
using polc::rans::Error;
using polc::rans::Tables;

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  uint8_t byte() { return at_ < size_ ? data_[at_++] : 0; }
  uint16_t half() {
    const uint16_t low = byte();
    return static_cast<uint16_t>(low | byte() << 8);
  }
  int32_t word() {
    const uint32_t low = half();
    return static_cast<int32_t>(low | uint32_t{half()} << 16);
  }
  std::vector<int32_t> words(size_t count) {
    std::vector<int32_t> all(count);
    for (auto& each : all) each = word();
    return all;
  }
  // In memory of its own, so that a read beyond its end is found.
  std::vector<uint8_t> rest() { return {data_ + at_, data_ + size_}; }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

Tables any_tables(Input& in) {
  const size_t rows = in.byte() % 8, width = in.byte();
  const auto lengths = in.words(rows), offsets = in.words(rows), cdf = in.words(rows * width);
  return Tables(cdf.data(), rows, width, lengths.data(), offsets.data());
}

// Rows that rise strictly from 0 to 65536, whatever the bytes.
Tables sound_tables(Input& in) {
  const size_t rows = 1 + in.byte() % 4, width = 2 + in.byte() % 60;
  std::vector<int32_t> cdf(rows * width), lengths(rows, static_cast<int32_t>(width)), offsets;
  for (size_t r = 0; r < rows; ++r) {
    int32_t* row = cdf.data() + r * width;
    uint64_t total = 0;
    std::vector<uint64_t> weights(width - 1);
    for (auto& each : weights) total += each = 1 + in.half();
    uint64_t sum = 0;
    for (size_t i = 0; i + 2 < width; ++i) {
      sum += weights[i];
      const auto scaled = static_cast<int32_t>(sum * (65536 - width) / total);
      row[i + 1] = scaled + static_cast<int32_t>(i) + 1;
    }
    row[width - 1] = 65536;
    offsets.push_back(in.word());
  }
  return Tables(cdf.data(), rows, width, lengths.data(), offsets.data());
}

void fail(const char* what) {
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

void check_round_trip(const Tables& tables, const std::vector<int32_t>& indexes, const std::vector<int32_t>& symbols) {
  std::vector<uint8_t> again;
  try {
    again = polc::rans::encode(tables, symbols.data(), indexes.data(), symbols.size());
  } catch (const Error&) {
    return;  // an escape may hold a symbol that its row cannot code
  }
  std::vector<int32_t> back(symbols.size());
  Decoder decoder(tables, again.data(), again.size());
  decoder.decode(indexes.data(), indexes.size(), back.data());
  decoder.finish();
  if (back != symbols) fail("symbols that were coded decode to others");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input in(data, size);
  try {
    const bool sound = in.byte() & 1;
    const Tables tables = sound ? sound_tables(in) : any_tables(in);
    std::vector<int32_t> indexes(in.byte());
    for (auto& index : indexes) index = sound ? in.byte() % 5 : in.word();
    const auto stream = in.rest();
    Decoder decoder(tables, stream.data(), stream.size());
    std::vector<int32_t> symbols(indexes.size());
    const size_t half = indexes.size() / 2;
    decoder.decode(indexes.data(), half, symbols.data());
    decoder.decode(indexes.data() + half, indexes.size() - half, symbols.data() + half);
    if (sound) check_round_trip(tables, indexes, symbols);
    decoder.finish();
  } catch (const Error&) {
  }
  return 0;
}
