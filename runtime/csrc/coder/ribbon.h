// The equations of a calibration (docs/bitstream.md, "Calibration"), solved over GF(2) within their band.
// The fast twin of polc_runtime/bitstream/retrieval.py; both give the same solution, byte for byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace polc::ribbon {

inline int trailing_zeros(uint64_t word) {
  int count = 0;
  for (int step : {32, 16, 8, 4, 2, 1}) {
    if ((word & ((uint64_t{1} << step) - 1)) == 0) {
      count += step;
      word >>= step;
    }
  }
  return count;
}

inline uint8_t parity(uint64_t word) {
  for (int fold : {32, 16, 8, 4, 2, 1}) word ^= word >> fold;
  return word & 1;
}

// Finds bits with which every equation holds: parity(mask & the 64 bits from start on) = side.
//
// starts: first bit of each equation's window, ascending; each below 8 * size, and its mask within the bits.
// size: bytes of the solution, which is written to `solution`.
// Returns false where the equations contradict each other.
inline bool solve(const uint64_t* starts, const uint64_t* masks, const uint8_t* sides, size_t count,
                  size_t size, uint8_t* solution) {
  const size_t bits = 8 * size;
  std::vector<uint64_t> pivots(bits);  // the equation whose window begins at a bit, once reduced
  std::vector<uint8_t> values(bits);
  for (size_t i = 0; i < count; ++i) {
    uint64_t start = starts[i], mask = masks[i];
    uint8_t side = sides[i];
    for (;;) {
      if (mask == 0) {
        if (side) return false;
        break;
      }
      const int skipped = trailing_zeros(mask);
      start += skipped;
      mask >>= skipped;
      if (start >= bits) return false;  // not a window of this solution
      if (pivots[start] == 0) {
        pivots[start] = mask;
        values[start] = side;
        break;
      }
      mask ^= pivots[start];
      side ^= values[start];
    }
  }
  for (size_t i = 0; i < size; ++i) solution[i] = 0;
  uint64_t window = 0;  // the bits behind the present one, the nearest lowest
  for (size_t start = bits; start-- > 0;) {
    window <<= 1;
    const uint8_t bit = parity(pivots[start] & window) ^ values[start];
    window |= bit;
    solution[start / 8] |= static_cast<uint8_t>(bit << start % 8);
  }
  return true;
}

}  // namespace polc::ribbon
