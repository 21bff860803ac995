#include "worker/line_relay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace penstock {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

class LineRelayTest : public testing::Test {
 protected:
  LineRelay Make(LineRelayOptions options) {
    return {options, [this](LogLevel level, std::string_view line) {
              lines_.emplace_back(level, std::string(line));
            }};
  }
  std::vector<std::pair<LogLevel, std::string>> lines_;
};

TEST_F(LineRelayTest, Pieces_BecomeLinesOfTheirLevels) {
  LineRelay relay = Make({});
  relay.Append(std::string("<3>bro"), kNsPerS);
  relay.Append(std::string("ken\nplain\n<7>deb\n<9>what\nrest"), kNsPerS);
  EXPECT_THAT(lines_, ElementsAre(Pair(LogLevel::kError, "broken"), Pair(LogLevel::kInfo, "plain"),
                                  Pair(LogLevel::kDebug, "deb"), Pair(LogLevel::kInfo, "<9>what")));
  relay.Finish(kNsPerS);
  EXPECT_EQ(lines_.back().second, "rest");
}

TEST_F(LineRelayTest, LastLine_IsTheLastThatIsNotBlankAlsoIfLeftOut) {
  LineRelay relay = Make({.burst_lines = 1});
  EXPECT_EQ(relay.last_line(), "");
  relay.Append(std::string("first\n<3>bro\xffken\n \t\r\n\n"), kNsPerS);
  EXPECT_EQ(lines_.size(), 1U);
  EXPECT_EQ(relay.last_line(), "bro\xEF\xBF\xBDken");
  relay.Append(std::string("un"), kNsPerS);
  EXPECT_EQ(relay.last_line(), "bro\xEF\xBF\xBDken");
  relay.Finish(kNsPerS);
  EXPECT_EQ(relay.last_line(), "un");
}

TEST_F(LineRelayTest, LongLine_IsCutAndSaysSo) {
  LineRelay relay = Make({.max_line_bytes = 4});
  relay.Append(std::string("abcdefgh\nxy\n"), kNsPerS);
  EXPECT_THAT(lines_, ElementsAre(Pair(LogLevel::kInfo, "abcd [4 bytes more]"),
                                  Pair(LogLevel::kInfo, "xy")));
}

TEST_F(LineRelayTest, BytesThatAreNoText_AreReplaced) {
  LineRelay relay = Make({});
  relay.Append(std::string("a\xff\n"), kNsPerS);
  EXPECT_EQ(lines_[0].second, "a\xef\xbf\xbd");
}

TEST_F(LineRelayTest, Flood_IsLeftOutAndCounted) {
  LineRelay relay = Make({.burst_lines = 2, .lines_per_s = 1});
  relay.Append(std::string("a\nb\nc\nd\n"), kNsPerS);
  EXPECT_EQ(lines_.size(), 2U);
  EXPECT_TRUE(relay.is_flooded());
  relay.Append(std::string("e\n"), 2 * kNsPerS);
  EXPECT_THAT(lines_[2], Pair(LogLevel::kWarning, HasSubstr("2 lines (2 bytes)")));
  EXPECT_EQ(lines_[3].second, "e");
  EXPECT_FALSE(relay.is_flooded());
}

TEST_F(LineRelayTest, Tick_TellsOnceLinesMayPassAgain) {
  LineRelay relay = Make({.burst_lines = 2, .lines_per_s = 2});
  relay.Append(std::string("a\nb\nc\n"), kNsPerS);
  relay.Tick(kNsPerS + kNsPerS / 2);
  EXPECT_TRUE(relay.is_flooded());
  relay.Tick(2 * kNsPerS);
  EXPECT_FALSE(relay.is_flooded());
  EXPECT_THAT(lines_.back(), Pair(LogLevel::kWarning, HasSubstr("1 lines (1 bytes)")));
}

TEST_F(LineRelayTest, Finish_TellsWhatWasLeftOut) {
  LineRelay relay = Make({.burst_lines = 1, .lines_per_s = 1});
  relay.Append(std::string("a\nb\n"), kNsPerS);
  relay.Finish(kNsPerS);
  EXPECT_THAT(lines_.back(), Pair(LogLevel::kWarning, HasSubstr("1 lines")));
}

}  // namespace
}  // namespace penstock
