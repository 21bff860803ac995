// The whole client against a peer that answers as it is told.

#include "load/run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "load/message.h"
#include "peer.h"

namespace penstock::load {
namespace {

using testing::HasSubstr;

constexpr auto kPath = "/test.Test/Call";

RunOptions Options(const Peer& peer, uint64_t requests, size_t concurrency = 4) {
  RunOptions options;
  options.fleet.target = {.port = peer.port(), .path = kPath};
  options.pacer = {.max_in_flight = concurrency, .requests = requests};
  return options;
}

Workload Echoed(std::vector<Sample> samples, bool streaming = false) {
  return *Workload::Create(std::move(samples),
                           {.path = kPath, .streaming = streaming, .expect_request = true});
}

Reply Echo(std::string_view message) { return {.data = Framed(message)}; }

Report RunOrDie(const RunOptions& options, const Workload& workload) {
  auto report = Run(options, workload);
  EXPECT_TRUE(report.ok()) << report.status().ToString();
  return *std::move(report);
}

const Failures& Of(const Report& report, Outcome outcome) {
  return report.outcomes[static_cast<size_t>(outcome)];
}

TEST(Run, EveryRequestIsAnsweredAndSamplesTakeTurns) {
  std::map<std::string, int> seen;
  Peer peer([&](std::string_view message) {
    ++seen[std::string(message)];
    return Echo(message);
  });
  RunOptions options = Options(peer, 300);
  options.fleet.connections = 3;
  const Report report = RunOrDie(options, Echoed({{"a", {}}, {"", {}}, {"ccc", {}}}));
  EXPECT_TRUE(report.is_clean()) << report.ToText();
  EXPECT_EQ(report.latency.count(), 300u);
  EXPECT_EQ(report.sent, 300u);
  EXPECT_EQ(peer.accepted(), 3u);
  EXPECT_EQ(seen, (std::map<std::string, int>{{"a", 100}, {"", 100}, {"ccc", 100}}));
}

TEST(Run, LargeBodiesPassFlowControlBothWays) {
  Peer peer(&Echo);
  std::string body(3 << 20, '\0');
  for (size_t i = 0; i < body.size(); ++i) body[i] = static_cast<char>(i * 2'654'435'761u >> 13);
  const Report report = RunOrDie(Options(peer, 12), Echoed({{body, {}}}));
  EXPECT_TRUE(report.is_clean()) << report.ToText();
  EXPECT_EQ(report.latency.count(), 12u);
}

TEST(Run, OpenLoopSendsWhatTheRateAsksFor) {
  Peer peer(&Echo);
  RunOptions options = Options(peer, 200, 1'000);
  options.pacer.rate = 2'000;
  const Report report = RunOrDie(options, Echoed({{"x", {}}}));
  EXPECT_TRUE(report.is_clean()) << report.ToText();
  EXPECT_EQ(report.latency.count(), 200u);
  EXPECT_EQ(report.lateness.count(), 200u);
  EXPECT_THAT(report.ToText(), HasSubstr("(2000.00 wanted)"));
}

TEST(Run, StreamsCarryManyRequestsEach) {
  Peer peer(&Echo, true);
  RunOptions options = Options(peer, 500, 16);
  options.fleet.connections = 2;
  options.fleet.streams = 5;
  const Report report = RunOrDie(options, Echoed({{"a", {}}, {"bb", {}}}, true));
  EXPECT_TRUE(report.is_clean()) << report.ToText();
  EXPECT_EQ(report.latency.count(), 500u);
}

TEST(Run, StreamAnswersInTheWrongOrderAreFound) {
  int count = 0;
  Peer peer(
      [&](std::string_view message) {
        return ++count % 10 == 0 ? Echo("another's") : Echo(message);
      },
      true);
  RunOptions options = Options(peer, 50, 4);
  options.fleet.streams = 1;
  const Report report = RunOrDie(options, Echoed({{"x", {}}}, true));
  EXPECT_EQ(Of(report, Outcome::kWrongAnswer).count, 5u);
  EXPECT_EQ(report.latency.count(), 45u);
}

TEST(Run, AStreamThatEndsFailsWhatItOwedAndIsOpenedAgain) {
  int count = 0;
  Peer peer(
      [&](std::string_view message) {
        if (++count == 10) return Reply{.status = "14", .message = "shutting down"};
        return Echo(message);
      },
      true);
  RunOptions options = Options(peer, 100, 1);
  options.fleet.streams = 1;
  const Report report = RunOrDie(options, Echoed({{"x", {}}}, true));
  EXPECT_EQ(report.outcomes[14].count, 1u);
  EXPECT_EQ(report.outcomes[14].first, "shutting down");
  EXPECT_EQ(report.latency.count(), 99u);
}

TEST(Run, UniqueIdsReachTheServer) {
  std::set<std::string> ids;
  Peer peer([&](std::string_view message) {
    ids.emplace(FindField(message, kIdField)->payload);
    return Echo(message);
  });
  const std::string request = "\x0a\x01m";
  auto workload = Workload::Create({{request, {}}},
                                   {.path = kPath, .unique_ids = true, .expect_request = true});
  const Report report = RunOrDie(Options(peer, 100), *workload);
  EXPECT_TRUE(report.is_clean()) << report.ToText();
  EXPECT_EQ(ids.size(), 100u);
}

struct Wrong {
  const char* name;
  Reply reply;
  Outcome outcome;
  const char* text;
};

class RunAgainst : public testing::TestWithParam<Wrong> {};

// Every tenth request is treated badly; the others must not suffer.
TEST_P(RunAgainst, IsCountedByWhatItIs) {
  int count = 0;
  Peer peer([&](std::string_view message) {
    return ++count % 10 == 0 ? GetParam().reply : Echo(message);
  });
  const Report report = RunOrDie(Options(peer, 100, 1), Echoed({{"x", {}}}));
  EXPECT_EQ(Of(report, GetParam().outcome).count, 10u) << report.ToText();
  EXPECT_EQ(report.failed(), 10u) << report.ToText();
  EXPECT_EQ(report.latency.count(), 90u);
  EXPECT_THAT(Of(report, GetParam().outcome).first, HasSubstr(GetParam().text));
  EXPECT_TRUE(report.ended_early.empty()) << report.ended_early;
}

INSTANTIATE_TEST_SUITE_P(
    Peers, RunAgainst,
    testing::Values(
        Wrong{"Status", {.status = "8", .message = "full"}, static_cast<Outcome>(8), "full"},
        Wrong{"UnknownStatus", {.status = "99"}, static_cast<Outcome>(2), ""},
        Wrong{"WrongAnswer", {.data = Framed("y")}, Outcome::kWrongAnswer, "differs"},
        Wrong{"NoMessage", {}, Outcome::kBadResponse, "without an answer"},
        Wrong{"CutMessage",
              {.data = Framed("xyz").substr(0, 6)},
              Outcome::kBadResponse,
              "without an answer"},
        Wrong{"TwoMessages",
              {.data = Framed("x") + Framed("x")},
              Outcome::kBadResponse,
              "more than one"},
        Wrong{"Compressed",
              {.data = std::string("\1\0\0\0\1x", 6)},
              Outcome::kBadResponse,
              "compressed"},
        Wrong{"NoTrailers",
              {.data = Framed("x"), .status = ""},
              Outcome::kBadResponse,
              "without a grpc-status"},
        Wrong{"HttpStatus", {.status = "", .http_status = "503"}, Outcome::kBadResponse, "503"},
        Wrong{"Reset", {.act = Reply::Act::kReset}, Outcome::kConnectionLost, "INTERNAL_ERROR"},
        Wrong{"HangUp", {.act = Reply::Act::kHangUp}, Outcome::kConnectionLost, "closed"}),
    [](const auto& info) { return info.param.name; });

TEST(Run, AConnectionThatIsToldToGoIsReplacedWithoutLoss) {
  int count = 0;
  Peer peer([&](std::string_view message) {
    Reply reply = Echo(message);
    if (++count % 10 == 0) reply.act = Reply::Act::kGoAway;
    return reply;
  });
  const Report report = RunOrDie(Options(peer, 100, 1), Echoed({{"x", {}}}));
  EXPECT_TRUE(report.is_clean()) << report.ToText();
  EXPECT_GE(report.reconnects, 9u);
}

TEST(Run, AServerThatFallsSilentEndsTheRunAndIsReported) {
  int count = 0;
  Peer peer([&](std::string_view message) {
    return ++count > 5 ? Reply{.act = Reply::Act::kNever} : Echo(message);
  });
  RunOptions options = Options(peer, 1'000, 2);
  options.patience_ns = 100'000'000;
  const Report report = RunOrDie(options, Echoed({{"x", {}}}));
  EXPECT_EQ(report.latency.count(), 5u);
  EXPECT_EQ(Of(report, Outcome::kNoAnswer).count, 2u);
  EXPECT_THAT(report.ended_early, HasSubstr("no answer for 100 ms"));
  EXPECT_FALSE(report.is_clean());
}

TEST(Run, AServerThatIsGoneEndsTheRunAndIsReported) {
  auto peer = std::make_unique<Peer>(&Echo);
  const RunOptions options = Options(*peer, 10);
  peer.reset();
  const auto report = load::Run(options, Echoed({{"x", {}}}));
  EXPECT_EQ(report.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(report.status().message()), HasSubstr("took no connection"));
}

}  // namespace
}  // namespace penstock::load
