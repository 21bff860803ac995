#include "transport/grpc_text.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace penstock {
namespace {

using std::string_view_literals::operator""sv;

TEST(GrpcTimeoutTest, EachUnit_IsNanoseconds) {
  EXPECT_EQ(ParseGrpcTimeoutNs("2H"), 7'200'000'000'000);
  EXPECT_EQ(ParseGrpcTimeoutNs("3M"), 180'000'000'000);
  EXPECT_EQ(ParseGrpcTimeoutNs("10S"), 10'000'000'000);
  EXPECT_EQ(ParseGrpcTimeoutNs("250m"), 250'000'000);
  EXPECT_EQ(ParseGrpcTimeoutNs("7u"), 7'000);
  EXPECT_EQ(ParseGrpcTimeoutNs("1n"), 1);
}

TEST(GrpcTimeoutTest, Zero_IsATimeThatIsUp) { EXPECT_EQ(ParseGrpcTimeoutNs("0S"), 0); }

TEST(GrpcTimeoutTest, LeadingZeros_Count) {
  EXPECT_EQ(ParseGrpcTimeoutNs("00000001S"), 1'000'000'000);
  EXPECT_EQ(ParseGrpcTimeoutNs("000000001S"), std::nullopt);
}

TEST(GrpcTimeoutTest, WhatInt64HasNoRoomFor_IsItsLargest) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(ParseGrpcTimeoutNs("99999999H"), kMax);
  EXPECT_EQ(ParseGrpcTimeoutNs("2562048H"), kMax);                           // the first beyond it
  EXPECT_EQ(ParseGrpcTimeoutNs("2562047H"), 2'562'047 * 3'600'000'000'000);  // the last within
  EXPECT_EQ(ParseGrpcTimeoutNs("99999999M"), 99'999'999 * 60'000'000'000);
}

TEST(GrpcTimeoutTest, WhatIsNoTimeout_IsRefused) {
  for (const std::string_view text :
       {""sv, "S"sv, "1"sv, "12"sv, "-1S"sv, "+1S"sv, " 1S"sv, "1S "sv, "1 S"sv, "1s"sv, "1h"sv,
        "1.5S"sv, "1SS"sv, "123456789S"sv, "99999999999999999999S"sv, "1\0S"sv, "1\0"sv,
        "\xb1S"sv}) {
    EXPECT_EQ(ParseGrpcTimeoutNs(text), std::nullopt) << text;
  }
}

TEST(PercentTest, PrintableText_PassesAsItIs) {
  const std::string_view text = " model 'digits' expected [1,64], got [2]: ~!$&";
  EXPECT_EQ(PercentEncode(text), text);
  EXPECT_EQ(PercentDecode(text), text);
}

TEST(PercentTest, OtherBytes_AreEscapedAndComeBack) {
  EXPECT_EQ(PercentEncode("100%\r\n\t\x7f\x80\xff"), "100%25%0D%0A%09%7F%80%FF");
  EXPECT_EQ(PercentEncode("\0"sv), "%00");
  EXPECT_EQ(PercentEncode("größe"), "gr%C3%B6%C3%9Fe");
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  const std::string text = PercentEncode(all);
  EXPECT_EQ(PercentDecode(text), all);
  for (const char each : text) EXPECT_TRUE(each >= 0x20 && each <= 0x7E) << int{each};
}

TEST(PercentTest, HexDigits_AreReadInEitherCase) { EXPECT_EQ(PercentDecode("%c3%B6"), "\xc3\xb6"); }

TEST(PercentTest, MalformedEscapes_StandForThemselves) {
  for (const std::string_view text : {"%"sv, "%4"sv, "a%"sv, "%zz"sv, "%4g"sv, "%g4"sv, "% 41"sv}) {
    EXPECT_EQ(PercentDecode(text), text);
  }
  EXPECT_EQ(PercentDecode("%%41"), "%A");
  EXPECT_EQ(PercentDecode("%4%41"), "%4A");
  EXPECT_EQ(PercentDecode("%2541"), "%41");  // once only
}

TEST(BinaryHeaderTest, TheVectorsOfRfc4648_WithAndWithoutPadding) {
  for (const auto& [bytes, padded] :
       {std::pair{""sv, ""sv}, std::pair{"f"sv, "Zg=="sv}, std::pair{"fo"sv, "Zm8="sv},
        std::pair{"foo"sv, "Zm9v"sv}, std::pair{"foob"sv, "Zm9vYg=="sv},
        std::pair{"fooba"sv, "Zm9vYmE="sv}, std::pair{"foobar"sv, "Zm9vYmFy"sv}}) {
    const std::string_view bare = padded.substr(0, padded.find('='));
    EXPECT_EQ(EncodeBinaryHeader(bytes), bare);
    EXPECT_EQ(DecodeBinaryHeader(padded), bytes);
    EXPECT_EQ(DecodeBinaryHeader(bare), bytes);
  }
}

TEST(BinaryHeaderTest, AllBytes_ComeBackAtEveryLength) {
  std::string bytes;
  for (int i = 0; i < 260; ++i) {
    EXPECT_EQ(DecodeBinaryHeader(EncodeBinaryHeader(bytes)), bytes);
    bytes.push_back(static_cast<char>(251 * i + 13));
  }
  EXPECT_EQ(EncodeBinaryHeader("\xfb\xff\xbf"), "+/+/");
}

TEST(BinaryHeaderTest, WhatIsNoBase64_IsRefused) {
  for (const std::string_view text :
       {"A"sv, "AAAAA"sv, "A==="sv, "=AAA"sv, "A=AA"sv, "AA=A"sv, "AA-_"sv, "AA A"sv, "AA,A"sv,
        "AA\0A"sv, "AA\xc3\x84"sv, "AAA\n"sv}) {
    EXPECT_EQ(DecodeBinaryHeader(text), std::nullopt) << text;
  }
}

TEST(BinaryHeaderTest, BitsThatNoByteHasRoomFor_MustBeZero) {
  EXPECT_EQ(DecodeBinaryHeader("Zh"), std::nullopt);
  EXPECT_EQ(DecodeBinaryHeader("Zm9"), std::nullopt);
}

}  // namespace
}  // namespace penstock
