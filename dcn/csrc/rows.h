// Rows of numbers between the storage types and the working type. Included once per instruction set, hence no external names.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "problem.h"

namespace {

using dcn::Type;

inline float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

struct BFloat16 {
  uint16_t bits;
  explicit operator float() const { return bits_to_float(uint32_t(bits) << 16); }
  static BFloat16 from(float value) {  // to nearest, ties to even
    const uint32_t bits = float_to_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fc0};
    return {uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
  }
};

struct Half {
  uint16_t bits;
  explicit operator float() const {
    const uint32_t sign = uint32_t(bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
    if (magnitude >= 0x7c00u) return bits_to_float(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
    if (magnitude >= 0x0400u) return bits_to_float(sign | ((magnitude << 13) + 0x38000000u));
    const float value = float(magnitude) * 0x1p-24f;  // subnormal or zero
    return sign ? -value : value;
  }
  static Half from(float value) {  // to nearest, ties to even
    const uint32_t bits = float_to_bits(value), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return {uint16_t(sign | 0x7e00u)};
    if (magnitude >= 0x477ff000u) return {uint16_t(sign | 0x7c00u)};  // rounds to infinity
    if (magnitude < 0x38800000u) {  // subnormal: let the float adder round at 2^-24
      const uint32_t shifted = float_to_bits(bits_to_float(magnitude) + 0.5f);
      return {uint16_t(sign | (shifted - 0x3f000000u))};
    }
    return {uint16_t(sign | ((magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13))};
  }
};

template <class To, class From>
inline To convert(From value) {
  if constexpr (std::is_same_v<To, BFloat16> || std::is_same_v<To, Half>)
    return To::from(float(value));
  else if constexpr (std::is_same_v<From, BFloat16> || std::is_same_v<From, Half>)
    return To(float(value));
  else
    return To(value);
}

template <class To, class From>
inline void copy_row(const From* from, int64_t from_step, To* to, int64_t to_step, int64_t count) {
  if (from_step == 1 && to_step == 1)
    for (int64_t i = 0; i < count; ++i) to[i] = convert<To>(from[i]);
  else
    for (int64_t i = 0; i < count; ++i) to[i * to_step] = convert<To>(from[i * from_step]);
}

// `count` numbers of `type`, from element `first` on, to the working type.
template <class S>
inline void load_row(const void* data, Type type, int64_t first, int64_t step, S* to, int64_t to_step, int64_t count) {
  switch (type) {
    case Type::f32: return copy_row(static_cast<const float*>(data) + first, step, to, to_step, count);
    case Type::f64: return copy_row(static_cast<const double*>(data) + first, step, to, to_step, count);
    case Type::f16: return copy_row(static_cast<const Half*>(data) + first, step, to, to_step, count);
    case Type::bf16: return copy_row(static_cast<const BFloat16*>(data) + first, step, to, to_step, count);
  }
}

template <class S>
inline void store_row(const S* from, int64_t from_step, void* data, Type type, int64_t first, int64_t step, int64_t count) {
  switch (type) {
    case Type::f32: return copy_row(from, from_step, static_cast<float*>(data) + first, step, count);
    case Type::f64: return copy_row(from, from_step, static_cast<double*>(data) + first, step, count);
    case Type::f16: return copy_row(from, from_step, static_cast<Half*>(data) + first, step, count);
    case Type::bf16: return copy_row(from, from_step, static_cast<BFloat16*>(data) + first, step, count);
  }
}

}  // namespace
