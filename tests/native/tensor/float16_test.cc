#include "tensor/float16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace penstock {
namespace {

TEST(Float16Test, Fp16_KnownValues) {
  EXPECT_EQ(Fp16ToFloat(0x0000), 0.0F);
  EXPECT_TRUE(std::signbit(Fp16ToFloat(0x8000)));
  EXPECT_EQ(Fp16ToFloat(0x3c00), 1.0F);
  EXPECT_EQ(Fp16ToFloat(0xc000), -2.0F);
  EXPECT_EQ(Fp16ToFloat(0x7bff), 65504.0F);
  EXPECT_EQ(Fp16ToFloat(0x0400), 0x1p-14F);       // smallest normal
  EXPECT_EQ(Fp16ToFloat(0x0001), 0x1p-24F);       // smallest subnormal
  EXPECT_EQ(Fp16ToFloat(0x83ff), -0x1.ff8p-15F);  // largest subnormal
  EXPECT_EQ(Fp16ToFloat(0x7c00), std::numeric_limits<float>::infinity());
  EXPECT_EQ(Fp16ToFloat(0xfc00), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(Fp16ToFloat(0x7e01)));
}

// The value as the standard defines it, by arithmetic instead of by bits.
float ByDefinition(uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1f;
  const auto mantissa = static_cast<float>(bits & 0x3ff);
  const float sign = (bits & 0x8000) != 0 ? -1.0F : 1.0F;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024.0F + mantissa, exponent - 25);
}

TEST(Float16Test, Fp16_EveryFiniteValue) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    if (((bits >> 10) & 0x1f) == 0x1f) continue;
    ASSERT_EQ(Fp16ToFloat(static_cast<uint16_t>(bits)), ByDefinition(static_cast<uint16_t>(bits)))
        << bits;
  }
}

TEST(Float16Test, Bf16_IsTheUpperHalfOfAFloat) {
  EXPECT_EQ(Bf16ToFloat(0x3f80), 1.0F);
  EXPECT_EQ(Bf16ToFloat(0xc000), -2.0F);
  EXPECT_EQ(Bf16ToFloat(0x7f80), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(Bf16ToFloat(0x7fc0)));
}

}  // namespace
}  // namespace penstock
