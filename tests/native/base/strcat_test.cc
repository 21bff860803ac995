#include "base/strcat.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

namespace penstock {
namespace {

TEST(StrCatTest, JoinsTextCharactersAndNumbers) {
  const std::string owned = "c";
  const std::string_view view = "d";
  EXPECT_EQ(StrCat("a", 'b', owned, view, 1, -2, uint8_t{3}), "abcd1-23");
}

TEST(StrCatTest, NumbersAtTheirLimits) {
  EXPECT_EQ(StrCat(std::numeric_limits<int64_t>::min()), "-9223372036854775808");
  EXPECT_EQ(StrCat(std::numeric_limits<uint64_t>::max()), "18446744073709551615");
}

TEST(StrCatTest, Nothing_IsEmpty) { EXPECT_EQ(StrCat(), ""); }

}  // namespace
}  // namespace penstock
