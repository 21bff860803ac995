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
