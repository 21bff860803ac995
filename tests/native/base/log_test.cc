#include "base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <string>

namespace penstock {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::MatchesRegex;

class LogTest : public testing::Test {
 protected:
  ~LogTest() override { SetLogging({}); }

  static std::string Logged(LogLevel level, std::string_view component, std::string_view message) {
    testing::internal::CaptureStderr();
    Log(level, component, message);
    return testing::internal::GetCapturedStderr();
  }
};

TEST_F(LogTest, Text_IsOneLineWithTimeLevelAndComponent) {
  EXPECT_THAT(Logged(LogLevel::kWarning, "engine", "it is so"),
              MatchesRegex("....-..-..T..:..:......Z WARNING engine: it is so\n"));
}

TEST_F(LogTest, Text_ControlCharactersForgeNoSecondLine) {
  EXPECT_THAT(Logged(LogLevel::kInfo, "engine", "a\nb\x1b[31mc"),
              EndsWith("INFO engine: a b [31mc\n"));
}

// U+009B is one byte's CSI: a terminal obeys it as it does ESC [.
TEST_F(LogTest, Text_SteersNoTerminalAndIsUtf8) {
  EXPECT_THAT(Logged(LogLevel::kInfo, "x", "a\x7f\u0085\u009b31m\u00e4\u2028b\x9b\xf0\x9f\x98\x80"),
              EndsWith("INFO x: a   31m\u00e4 b\uFFFD\xf0\x9f\x98\x80\n"));
  const std::array<LogField, 4> fields = {
      {{"a", "\u009b2J"}, {"b", "x\x7f"}, {"c", "\u00e9\x80"}, {"d", "\u2029"}}};
  testing::internal::CaptureStderr();
  Log(LogLevel::kInfo, "x", "call", fields);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              EndsWith("call a=\"\\u009b2J\" b=\"x\\u007f\" c=\u00e9\uFFFD d=\"\\u2029\"\n"));
}

TEST_F(LogTest, Json_SteersNoTerminalAndIsUtf8) {
  SetLogging({.format = LogFormat::kJson});
  EXPECT_THAT(
      Logged(LogLevel::kInfo, "x\xff", "\u0080\u009f\x7f\u00a0\u2028"),
      HasSubstr("\"logger\":\"x\uFFFD\",\"message\":\"\\u0080\\u009f\\u007f\u00a0\\u2028\"}"));
}

TEST_F(LogTest, Json_EscapesWhatJsonMust) {
  SetLogging({.format = LogFormat::kJson});
  const std::string line = Logged(LogLevel::kError, "a\"b", "c\\d\ne\x01");
  EXPECT_THAT(line, HasSubstr(R"("level":"ERROR","logger":"a\"b","message":"c\\d\u000ae\u0001"})"));
  EXPECT_THAT(line, EndsWith("}\n"));
}

TEST_F(LogTest, Fields_AreMembersOfTheObjectAndTheEndOfTheLine) {
  const std::array<LogField, 3> fields = {
      {{"model", "m"}, {"request_id", "a \"b\"\n"}, {"sent_bytes", "12", true}}};
  testing::internal::CaptureStderr();
  Log(LogLevel::kInfo, "x", "call", fields);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              EndsWith("INFO x: call model=m request_id=\"a \\\"b\\\"\\u000a\" sent_bytes=12\n"));
  SetLogging({.format = LogFormat::kJson});
  testing::internal::CaptureStderr();
  Log(LogLevel::kInfo, "x", "call", fields);
  EXPECT_THAT(
      testing::internal::GetCapturedStderr(),
      EndsWith(R"("message":"call","model":"m","request_id":"a \"b\"\u000a","sent_bytes":12})"
               "\n"));
}

TEST_F(LogTest, LevelThatIsOff_IsDroppedAlone) {
  SetLogging({.debug = true, .warning = false});
  EXPECT_NE(Logged(LogLevel::kDebug, "engine", "x"), "");
  EXPECT_NE(Logged(LogLevel::kInfo, "engine", "x"), "");
  EXPECT_EQ(Logged(LogLevel::kWarning, "engine", "x"), "");
  SetLogging({.error = false});
  EXPECT_EQ(Logged(LogLevel::kError, "engine", "x"), "");
}

TEST_F(LogTest, BelowTheLevel_IsDropped) {
  SetLogging({.info = false, .warning = false});
  EXPECT_EQ(Logged(LogLevel::kWarning, "engine", "x"), "");
  EXPECT_NE(Logged(LogLevel::kError, "engine", "x"), "");
}

}  // namespace
}  // namespace penstock
