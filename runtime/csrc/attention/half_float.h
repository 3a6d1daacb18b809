// Half precision on the CPU: conversions written so that compilers turn loops of them into vector instructions.
#pragma once

#include <cstdint>
#include <cstring>

namespace polc {

inline float float_of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline uint32_t bits_of_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline float float_of_half(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t size = static_cast<uint32_t>(half & 0x7fffu) << 13;
  const uint32_t normal = size + (112u << 23);  // from the exponent's bias of 15 to that of 127
  const uint32_t endless = size + (224u << 23);  // infinity, NaN: the exponent 31 becomes 255
  const uint32_t tiny = bits_of_float(float_of_bits(size + (113u << 23)) - float_of_bits(113u << 23));
  return float_of_bits(sign | (size < (1u << 23) ? tiny : size < (31u << 23) ? normal : endless));
}

// To the nearest, of two equally near ones to the even one.
inline uint16_t half_of_float(float value) {
  constexpr uint32_t kTwoTo16 = 143u << 23, kLeastNormal = 113u << 23, kInfinity = 255u << 23;
  constexpr uint32_t kTinyStep = 126u << 23;  // 0.5: added to a size below 2^-14, it leaves multiples of 2^-24
  const uint32_t bits = bits_of_float(value), size = bits & 0x7fffffffu;
  const uint32_t normal = (size - (112u << 23) + 0xfffu + ((size >> 13) & 1u)) >> 13;
  const uint32_t tiny = bits_of_float(float_of_bits(size) + float_of_bits(kTinyStep)) - kTinyStep;
  const uint32_t endless = size > kInfinity ? 0x7e00u : 0x7c00u;
  const uint32_t half = size >= kTwoTo16 ? endless : size < kLeastNormal ? tiny : normal;
  return static_cast<uint16_t>(half | ((bits >> 16) & 0x8000u));
}

}  // namespace polc
