// The entropy coder: 64-bit rANS, 32-bit words, 16-bit tables, escapes as 4-bit digits.
//
// The fast twin of polc_runtime/bitstream/rans_reference.py, which is the specification; both write the
// same bytes. No framework, C++17. Nothing here trusts its input: a bad table, row index, symbol or
// stream throws Error, and no read or write leaves its array.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace polc::rans {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

constexpr int kPrecision = 16;
constexpr uint32_t kTotal = 1u << kPrecision;
constexpr uint64_t kLower = uint64_t{1} << 31;  // least state between two symbols, and the first one
constexpr uint64_t kUpper = uint64_t{1} << 63;  // states stay below
constexpr int kDigitBits = 4;
constexpr uint32_t kMaxDigits = 8;
// Words one symbol may need: its interval, the count of digits and the digits move a word at most each.
constexpr size_t kMaxWords = 2 + kMaxDigits;

// Cumulative frequencies of all rows, laid out for coding.
class Tables {
 public:
  struct Row {
    uint32_t first;   // of the row's entries in cdf_
    uint32_t escape;  // the value whose interval announces an escape: length - 2
    int32_t offset;   // symbol of value 0
  };

  Tables(const int32_t* cdf, size_t rows, size_t width, const int32_t* lengths, const int32_t* offsets) {
    size_t entries = 0;
    for (size_t r = 0; r < rows; ++r) {
      if (lengths[r] < 2 || static_cast<size_t>(lengths[r]) > width || lengths[r] > int32_t{kTotal} + 1)
        throw Error("table row " + std::to_string(r) + " has a length outside its CDF");
      entries += static_cast<size_t>(lengths[r]);
    }
    if (rows == 0 || entries > INT32_MAX) throw Error("the table is empty or too large");
    cdf_.reserve(entries);
    buckets_.reserve(rows << kBucketBits);
    for (size_t r = 0; r < rows; ++r) add_row(r, cdf + r * width, static_cast<uint32_t>(lengths[r]), offsets[r]);
  }

  const Row& row(int32_t index) const {
    if (index < 0 || static_cast<size_t>(index) >= rows_.size())
      throw Error("table row " + std::to_string(index) + " was asked for, the table has " +
                  std::to_string(rows_.size()));
    return rows_[static_cast<size_t>(index)];
  }

  uint32_t start(const Row& row, uint32_t value) const { return cdf_[row.first + value]; }
  uint32_t width(const Row& row, uint32_t value) const {
    return cdf_[row.first + value + 1] - cdf_[row.first + value];
  }

  // The value whose interval holds slot < 2^16: from the first that reaches into slot's bucket, upwards.
  uint32_t find(int32_t index, const Row& row, uint32_t slot) const {
    const size_t bucket = (static_cast<size_t>(index) << kBucketBits) + (slot >> (kPrecision - kBucketBits));
    const uint32_t* cdf = cdf_.data() + row.first;
    uint32_t value = buckets_[bucket];
    while (cdf[value + 1] <= slot) ++value;  // ends: the row's last entry is 2^16
    return value;
  }

 private:
  static constexpr int kBucketBits = 8;

  void add_row(size_t r, const int32_t* cdf, uint32_t length, int32_t offset) {
    if (cdf[0] != 0 || cdf[length - 1] != int32_t{kTotal})
      throw Error("table row " + std::to_string(r) + " does not run from 0 to 65536");
    rows_.push_back({static_cast<uint32_t>(cdf_.size()), length - 2, offset});
    uint32_t bucket = 0;
    for (uint32_t i = 0; i + 1 < length; ++i) {
      if (cdf[i + 1] <= cdf[i]) throw Error("table row " + std::to_string(r) + " does not rise strictly");
      const auto end = static_cast<uint32_t>(cdf[i + 1]);
      cdf_.push_back(static_cast<uint32_t>(cdf[i]));
      for (; bucket < (1u << kBucketBits) && bucket << (kPrecision - kBucketBits) < end; ++bucket)
        buckets_.push_back(static_cast<uint16_t>(i));
    }
    cdf_.push_back(kTotal);
  }

  std::vector<Row> rows_;
  std::vector<uint32_t> cdf_;
  std::vector<uint16_t> buckets_;  // for each row and bucket, the value that holds the bucket's first slot
};

// A stream while it is written: rANS codes last in, first out, so words are kept in reverse.
class Writer {
 public:
  void reserve_symbol() {
    if (words_.size() - used_ < kMaxWords) words_.resize(2 * words_.size() + 1024);
  }

  void put(const Tables& tables, const Tables::Row& row, uint32_t value) {
    const uint32_t width = tables.width(row, value);
    spill(uint64_t{width} << (63 - kPrecision));
    state_ = (state_ / width << kPrecision) + state_ % width + tables.start(row, value);
  }

  void put_digit(uint32_t digit) {
    spill(uint64_t{1} << (63 - kDigitBits));
    state_ = (state_ << kDigitBits) | digit;
  }

  std::vector<uint8_t> finish() {
    std::vector<uint8_t> bytes;
    bytes.reserve(4 * (used_ + 2));
    append(bytes, static_cast<uint32_t>(state_));
    append(bytes, static_cast<uint32_t>(state_ >> 32));
    while (used_ > 0) append(bytes, words_[--used_]);
    return bytes;
  }

 private:
  void spill(uint64_t bound) {
    if (state_ < bound) return;
    words_[used_++] = static_cast<uint32_t>(state_);
    state_ >>= 32;
  }

  static void append(std::vector<uint8_t>& bytes, uint32_t word) {
    for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<uint8_t>(word >> (8 * i)));
  }

  uint64_t state_ = kLower;
  size_t used_ = 0;
  std::vector<uint32_t> words_;
};

inline void encode_symbol(Writer& out, const Tables& tables, int32_t index, int32_t symbol) {
  const Tables::Row& row = tables.row(index);
  const int64_t value = int64_t{symbol} - row.offset;
  if (value >= 0 && value < row.escape) {
    out.put(tables, row, static_cast<uint32_t>(value));
    return;
  }
  const int64_t raw = value < 0 ? -2 * value - 1 : 2 * (value - row.escape);
  if (raw > UINT32_MAX)
    throw Error("symbol " + std::to_string(symbol) + " is too far outside table row " + std::to_string(index) +
                " to be coded");
  uint32_t digits = 0;
  while (raw >> (kDigitBits * digits)) ++digits;
  for (uint32_t i = digits; i-- > 0;) out.put_digit(static_cast<uint32_t>(raw >> (kDigitBits * i)) & 15u);
  out.put_digit(digits);
  out.put(tables, row, row.escape);
}

// One stream of n symbols, symbol i coded with table row indexes[i].
inline std::vector<uint8_t> encode(const Tables& tables, const int32_t* symbols, const int32_t* indexes, size_t n) {
  Writer out;
  for (size_t i = n; i-- > 0;) {
    out.reserve_symbol();
    encode_symbol(out, tables, indexes[i], symbols[i]);
  }
  return out.finish();
}

// Reads one stream back, in as many calls as needed. The tables must outlive it.
class Decoder {
 public:
  Decoder(const Tables& tables, const uint8_t* data, size_t size) : tables_(&tables) {
    if (size < 8 || size % 4)
      throw Error("a stream has " + std::to_string(size) + " bytes, expected a multiple of 4 and at least 8");
    words_.resize(size / 4);
    for (size_t i = 0; i < words_.size(); ++i)
      words_[i] = uint32_t{data[4 * i]} | uint32_t{data[4 * i + 1]} << 8 | uint32_t{data[4 * i + 2]} << 16 |
                  uint32_t{data[4 * i + 3]} << 24;
    at_.state = words_[0] | uint64_t{words_[1]} << 32;
    if (at_.state < kLower || at_.state >= kUpper)
      throw Error("a stream does not start with a state of the coder: it is damaged");
  }

  // After an error the decoder stands where it stood before the call, and is of no further use.
  void decode(const int32_t* indexes, size_t n, int32_t* symbols) {
    Place at = at_;  // in registers, and sound even if two threads share a decoder by mistake
    for (size_t i = 0; i < n; ++i) symbols[i] = next_symbol(at, indexes[i]);
    at_ = at;
  }

  void finish() const {
    if (at_.next != words_.size())
      throw Error("a stream has " + std::to_string(words_.size() - at_.next) + " words left after its symbols");
    if (at_.state != kLower) throw Error("a stream does not end in the coder's first state: it is damaged");
  }

 private:
  struct Place {
    uint64_t state = 0;
    size_t next = 2;
  };

  void refill(Place& at) const {
    if (at.state >= kLower) return;
    if (at.next >= words_.size())
      throw Error("a stream ends before its last symbol: the file is truncated or damaged");
    at.state = at.state << 32 | words_[at.next++];
  }

  int32_t next_symbol(Place& at, int32_t index) const {
    const Tables::Row& row = tables_->row(index);
    const auto slot = static_cast<uint32_t>(at.state) & (kTotal - 1);
    const uint32_t value = tables_->find(index, row, slot);
    at.state = tables_->width(row, value) * (at.state >> kPrecision) + slot - tables_->start(row, value);
    refill(at);
    const int64_t symbol = (value == row.escape ? escaped(at, row.escape) : int64_t{value}) + row.offset;
    if (symbol != static_cast<int32_t>(symbol))
      throw Error("a stream holds a symbol beyond 32 bits: it is damaged");
    return static_cast<int32_t>(symbol);
  }

  int64_t escaped(Place& at, uint32_t escape) const {
    const uint32_t digits = next_digit(at);
    if (digits > kMaxDigits)
      throw Error("a stream holds an escape of more than " + std::to_string(kMaxDigits) + " digits: it is damaged");
    int64_t raw = 0;
    for (uint32_t i = 0; i < digits; ++i) raw |= int64_t{next_digit(at)} << (kDigitBits * i);
    return raw & 1 ? -(raw >> 1) - 1 : (raw >> 1) + escape;
  }

  uint32_t next_digit(Place& at) const {
    const auto digit = static_cast<uint32_t>(at.state) & 15u;
    at.state >>= kDigitBits;
    refill(at);
    return digit;
  }

  const Tables* tables_;
  std::vector<uint32_t> words_;
  Place at_;
};

}  // namespace polc::rans
