#include "base/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace penstock {
namespace {

TEST(IsValidUtf8, TextOfEveryLengthOfCharacterIsValid) {
  EXPECT_TRUE(IsValidUtf8(""));
  EXPECT_TRUE(IsValidUtf8("plain ascii, longer than one word of eight bytes"));
  EXPECT_TRUE(IsValidUtf8("\xC2\x80 \xDF\xBF"));
  EXPECT_TRUE(IsValidUtf8("\xE0\xA0\x80 \xED\x9F\xBF \xEE\x80\x80 \xEF\xBF\xBF"));
  EXPECT_TRUE(IsValidUtf8("\xF0\x90\x80\x80 \xF4\x8F\xBF\xBF"));
  EXPECT_TRUE(IsValidUtf8(std::string("nul\0inside", 10)));
}

TEST(IsValidUtf8, IllFormedTextIsRefusedAtEveryOffset) {
  const std::string cases[] = {
      "\x80",              // continuation first
      "\xC0\x80",          // overlong NUL
      "\xC1\xBF",          // overlong
      "\xC2",              // cut short
      "\xC2\x41",          // no continuation
      "\xE0\x9F\xBF",      // overlong
      "\xED\xA0\x80",      // surrogate
      "\xE2\x82",          // cut short
      "\xE2\x82\x41",      // no continuation
      "\xF0\x8F\xBF\xBF",  // overlong
      "\xF4\x90\x80\x80",  // beyond U+10FFFF
      "\xF0\x9F\x98",      // cut short
      "\xF5\x80\x80\x80",  // no such lead
      "\xFF",
  };
  for (const std::string& bad : cases) {
    for (size_t offset = 0; offset < 17; ++offset) {
      const std::string head(offset, 'a');
      EXPECT_FALSE(IsValidUtf8(head + bad)) << testing::PrintToString(head + bad);
      EXPECT_FALSE(IsValidUtf8(head + bad + std::string(9, 'a')))
          << testing::PrintToString(head + bad);
    }
  }
}

TEST(ReplaceInvalidUtf8, ReplacesBytesThatAreNoCharacters) {
  EXPECT_EQ(ReplaceInvalidUtf8(""), "");
  EXPECT_EQ(ReplaceInvalidUtf8("caf\xC3\xA9 \xE2\x82\xAC"), "caf\xC3\xA9 \xE2\x82\xAC");
  EXPECT_EQ(ReplaceInvalidUtf8("caf\xE9"), "caf\xEF\xBF\xBD");
  EXPECT_EQ(ReplaceInvalidUtf8("\xF0\x9F!"), "\xEF\xBF\xBD\xEF\xBF\xBD!");
}

TEST(Quoted, ShortTextIsWhole) { EXPECT_EQ(Quoted("digits"), "'digits'"); }

TEST(Quoted, LongTextIsCutBetweenCharacters) {
  EXPECT_EQ(Quoted("abcdef", 4), "'abcd...'");
  EXPECT_EQ(Quoted("abc\xE2\x82\xAC", 4), "'abc...'");
  EXPECT_EQ(Quoted("abc\xE2\x82\xAC"
                   "d",
                   6),
            "'abc\xE2\x82\xAC...'");
}

}  // namespace
}  // namespace penstock
