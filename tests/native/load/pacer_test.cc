#include "load/pacer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "load/ledger.h"
#include "testing/fake_clock.h"

namespace penstock::load {
namespace {

// The intended times of the first `count` requests, each sent at once and never answered.
std::vector<int64_t> Arrive(PacerOptions options, size_t count) {
  options.max_in_flight = count + 1;
  options.requests = count;
  Pacer pacer(options, 0);
  std::vector<int64_t> times;
  while (times.size() < count) {
    const int64_t next_ns = pacer.NextNs(0, times.size());
    times.push_back(pacer.Next(next_ns, times.size())->intended_ns);
  }
  return times;
}

TEST(Pacer, ClosedLoopSendsWhileThereIsRoom) {
  Pacer pacer({.max_in_flight = 2, .requests = 3}, 100);
  EXPECT_EQ(pacer.Next(100, 0)->intended_ns, 100);
  EXPECT_EQ(pacer.Next(105, 1)->intended_ns, 105);
  EXPECT_FALSE(pacer.Next(106, 2));
  EXPECT_EQ(pacer.NextNs(106, 2), kNever);
  EXPECT_EQ(pacer.Next(107, 1)->intended_ns, 107);
  EXPECT_TRUE(pacer.IsOver(107));
  EXPECT_FALSE(pacer.Next(108, 0));
}

TEST(Pacer, WarmupIsNotMeasured) {
  Pacer pacer({.max_in_flight = 9, .warmup_ns = 50, .requests = 1}, 100);
  EXPECT_FALSE(pacer.Next(149, 0)->is_measured);
  EXPECT_FALSE(pacer.IsOver(149));
  EXPECT_TRUE(pacer.Next(150, 1)->is_measured);
  EXPECT_TRUE(pacer.IsOver(150));
}

TEST(Pacer, DurationEndsTheRunAfterTheWarmup) {
  Pacer pacer({.max_in_flight = 9, .warmup_ns = 50, .duration_ns = 10}, 100);
  EXPECT_TRUE(pacer.Next(159, 0));
  EXPECT_FALSE(pacer.Next(160, 1));
  EXPECT_TRUE(pacer.IsOver(160));
  EXPECT_EQ(pacer.end_ns(), 160);
}

TEST(Pacer, ConstantArrivalsAreEvenlySpacedAndDoNotDrift) {
  const auto times = Arrive({.rate = 3, .arrivals = Arrivals::kConstant}, 3'000);
  EXPECT_EQ(times[0], 333'333'333);
  EXPECT_NEAR(static_cast<double>(times.back()), 1e12, 10);  // 3,000 at 3 a second
}

TEST(Pacer, PoissonArrivalsAreExponentialAndTheirSeedDecides) {
  const size_t count = 50'000;
  const auto times = Arrive({.rate = 1'000, .seed = 5}, count);
  double sum = 0;
  double squares = 0;
  for (size_t i = 1; i < count; ++i) {
    const auto gap_ms = static_cast<double>(times[i] - times[i - 1]) / kNsPerMs;
    sum += gap_ms;
    squares += gap_ms * gap_ms;
  }
  const double mean = sum / (count - 1);
  EXPECT_NEAR(mean, 1, 0.02);
  EXPECT_NEAR(squares / (count - 1) - mean * mean, 1,
              0.05);  // an exponential's is its mean's square
  EXPECT_EQ(Arrive({.rate = 1'000, .seed = 5}, 100),
            std::vector(times.begin(), times.begin() + 100));
  EXPECT_NE(Arrive({.rate = 1'000, .seed = 6}, 100),
            std::vector(times.begin(), times.begin() + 100));
}

TEST(Pacer, ArrivalsDoNotWaitForAnswers) {
  Pacer pacer({.rate = 1'000, .arrivals = Arrivals::kConstant, .max_in_flight = 100}, 0);
  for (size_t sent = 0; sent < 10; ++sent) {
    EXPECT_EQ(pacer.Next(10 * kNsPerMs, sent)->intended_ns,
              static_cast<int64_t>(sent + 1) * kNsPerMs);
  }
  EXPECT_FALSE(pacer.Next(10 * kNsPerMs, 10));
  EXPECT_EQ(pacer.NextNs(10 * kNsPerMs, 10), 11 * kNsPerMs);
}

// A server that answers in 1 ms, but stands still for 100 ms. A client that waits for each answer
// would see one slow request; those that should have been sent meanwhile are slow too.
TEST(CoordinatedOmission, AStallIsInTheLatencyOfEveryRequestThatItHeldUp) {
  FakeClock clock;
  const int64_t start_ns = clock.NowNs();
  Pacer pacer(
      {.rate = 1'000, .arrivals = Arrivals::kConstant, .max_in_flight = 1, .requests = 1'000},
      start_ns);
  Ledger ledger(start_ns);
  for (int i = 0; i < 1'000; ++i) {
    const int64_t next_ns = pacer.NextNs(clock.NowNs(), 0);
    if (next_ns > clock.NowNs()) clock.AdvanceTo(next_ns);
    const uint64_t token = ledger.Begin(*pacer.Next(clock.NowNs(), 0), clock.NowNs(), 0, "");
    clock.Advance(i == 500 ? 100 * kNsPerMs : kNsPerMs / 2);
    ledger.End(token, clock.NowNs(), Outcome::kOk, "");
  }
  const Report& report = ledger.report();
  // Half a millisecond is made good per request: about 200 of them were late.
  EXPECT_EQ(report.latency.max(), 100 * kNsPerMs);
  EXPECT_NEAR(static_cast<double>(report.latency.Percentile(90)) / kNsPerMs, 50, 5);
  EXPECT_NEAR(static_cast<double>(report.latency.Percentile(75)) / kNsPerMs, 0.5, 0.01);
  EXPECT_NEAR(static_cast<double>(report.lateness.max()) / kNsPerMs, 99, 0.1);
}

TEST(Ledger, ClosedLoopLatencyCountsFromTheSend) {
  Pacer pacer({.max_in_flight = 1, .requests = 2}, 0);
  Ledger ledger(0);
  for (const int64_t now_ns : {int64_t{0}, 100 * kNsPerMs}) {
    const uint64_t token = ledger.Begin(*pacer.Next(now_ns, 0), now_ns, 0, "");
    ledger.End(token, now_ns + kNsPerMs, Outcome::kOk, "");
  }
  EXPECT_EQ(ledger.report().latency.max(), kNsPerMs);
  EXPECT_EQ(ledger.report().lateness.max(), 0);
}

TEST(Ledger, FailuresAreCountedAlsoInTheWarmupAndHaveNoLatency) {
  Ledger ledger(0);
  const uint64_t warm = ledger.Begin({-5, false}, -5, 0, "");
  const uint64_t measured = ledger.Begin({5, true}, 5, 0, "");
  ledger.End(warm, 6, static_cast<Outcome>(14), "first");
  ledger.End(measured, 9, static_cast<Outcome>(14), "second");
  const Report& report = ledger.report();
  EXPECT_EQ(report.failed(), 2u);
  EXPECT_EQ(report.outcomes[14].first, "first");
  EXPECT_EQ(report.latency.count(), 0u);
  EXPECT_EQ(report.measured, 1u);
  EXPECT_EQ(report.measured_ns, 9);
  EXPECT_EQ(ledger.in_flight(), 0u);
  EXPECT_FALSE(report.is_clean());
}

TEST(Report, JsonEscapesWhatAServerSays) {
  Report report;
  report.outcomes[13] = {1, "a \"quote\", a \\ and a \n\xff"};
  const std::string json = report.ToJson();
  EXPECT_NE(
      json.find(R"("INTERNAL": {"count": 1, "first": "a \"quote\", a \\ and a \u000a\u00ff"})"),
      std::string::npos)
      << json;
}

}  // namespace
}  // namespace penstock::load
