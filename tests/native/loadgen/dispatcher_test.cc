#include "native/dispatcher.h"

#include <gmock/gmock.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <thread>

#include "testing/fake_clock.h"
#include "told.h"

namespace penstock::loadgen {
namespace {

using load::Outcome;

// Answers each sample with its number, at most `per_turn` of them in a turn; from then on that
// `dies_at` have been sent, with that the connection is lost.
class ScriptedCarrier final : public Carrier {
 public:
  struct Script {
    size_t per_turn = 1;
    size_t dies_at = SIZE_MAX;
    Outcome outcome = Outcome::kOk;
    std::string text = "";
    std::atomic<size_t> most_under_way{0};
    std::atomic<size_t> sent{0};
  };

  ScriptedCarrier(Script* script, Sink* sink, int wake_fd)
      : script_(*script), sink_(*sink), wake_fd_(wake_fd) {}

  void Send(size_t token, size_t sample) override {
    sent_.emplace_back(token, sample);
    ++script_.sent;
    script_.most_under_way = std::max(script_.most_under_way.load(), sent_.size());
  }
  void Turn() override {
    if (sent_.empty()) {
      pollfd waiting{wake_fd_, POLLIN, 0};
      poll(&waiting, 1, -1);
      return;
    }
    for (size_t i = 0; i < script_.per_turn && !sent_.empty(); ++i) {
      const bool is_lost = script_.sent >= script_.dies_at;
      AnswerOne(is_lost ? Outcome::kConnectionLost : script_.outcome);
    }
  }
  void Abandon() override {
    while (!sent_.empty()) AnswerOne(Outcome::kNoAnswer);
  }

 private:
  void AnswerOne(Outcome outcome) {
    const auto [token, sample] = sent_.front();
    sent_.pop_front();
    const std::string text = std::to_string(sample);
    sink_.OnAnswer(token, {outcome, script_.text, text});
  }

  Script& script_;
  Sink& sink_;
  const int wake_fd_;
  std::deque<std::pair<size_t, size_t>> sent_;
};

struct Bench {
  explicit Bench(size_t window) : Bench(Limits{.window = window}, &Clock::System()) {}
  Bench(Limits limits, Clock* clock) : recorder({.samples = 100, .clock = clock}) {
    recorder.SetComplete(told.Listener());
    auto made = Dispatcher::Start(&recorder, limits, [this](Carrier::Sink* sink, int wake_fd) {
      return Result<std::unique_ptr<Carrier>>(
          std::make_unique<ScriptedCarrier>(&script, sink, wake_fd));
    });
    EXPECT_TRUE(made.ok());
    dispatcher = *std::move(made);
  }

  ScriptedCarrier::Script script;
  Recorder recorder;
  Told told;
  std::unique_ptr<Dispatcher> dispatcher;
};

std::vector<Query> Queries(size_t count) {
  std::vector<Query> queries;
  for (size_t i = 0; i < count; ++i) queries.push_back({1000 + i, i % 100});
  return queries;
}

TEST(Dispatcher, AnswersEachQueryOnceWithItsOwnAnswer) {
  Bench bench(0);
  for (const Query& query : Queries(500)) bench.dispatcher->Issue({&query, 1});
  const auto told = bench.told.Await(500);
  for (uint64_t id = 1000; id < 1500; ++id) EXPECT_EQ(told.count(id), 1u);
  for (size_t sample = 0; sample < 100; ++sample) {
    ASSERT_EQ(bench.recorder.answers()[sample].size(), 1u);
    EXPECT_EQ(bench.recorder.answers()[sample][0].message, std::to_string(sample));
    EXPECT_EQ(bench.recorder.answers()[sample][0].count, 5u);
  }
}

TEST(Dispatcher, KeepsAWindowUnderWayAndNoMore) {
  Bench bench(8);
  bench.dispatcher->Issue(Queries(300));
  bench.dispatcher->Issue(Queries(50));
  bench.told.Await(350);
  EXPECT_EQ(bench.script.most_under_way, 8u);
}

TEST(Dispatcher, ARateSendsWhatIsDueAndNoMore) {
  FakeClock clock;
  Bench bench({.window = 8, .per_s = 1e6}, &clock);
  bench.dispatcher->Issue(Queries(50));
  for (size_t due = 1; due <= 10; ++due) {
    bench.told.Await(due);
    EXPECT_EQ(bench.told.count(), due);
    clock.Advance(1'000);
  }
  EXPECT_EQ(bench.script.most_under_way, 1u);
}

TEST(Dispatcher, ARateCatchesUpWithTimeButNotBeyondTheWindow) {
  FakeClock clock;
  Bench bench({.window = 8, .per_s = 1e6}, &clock);
  bench.dispatcher->Issue(Queries(1));
  bench.told.Await(1);
  clock.Advance(1'000'000);
  bench.dispatcher->Issue(Queries(50));
  bench.told.Await(50);
  EXPECT_EQ(bench.script.most_under_way, 8u);
}

TEST(Dispatcher, ACarrierThatCannotStartIsItsError) {
  Recorder recorder({.samples = 1});
  const auto made = Dispatcher::Start(&recorder, {}, [](Carrier::Sink*, int) {
    return Result<std::unique_ptr<Carrier>>(Unavailable("nobody listens"));
  });
  EXPECT_EQ(made.status().message(), "nobody listens");
}

TEST(Dispatcher, ALostTargetIsToldToNobodyAndSentNothingMore) {
  Bench bench(1);
  bench.script.dies_at = 3;
  bench.dispatcher->Issue(Queries(10));
  while (!bench.recorder.is_lost()) std::this_thread::yield();
  bench.dispatcher.reset();
  EXPECT_EQ(bench.told.count(), 2u);
  EXPECT_EQ(bench.script.sent, 3u);
}

struct FailureCase {
  StatusCode code;
  const char* text;
  bool is_lost;
};

class DispatcherFailure : public ::testing::TestWithParam<FailureCase> {};

TEST_P(DispatcherFailure, IsTheTargetsEndUnlessTheServerAnswered) {
  Bench bench(0);
  bench.script.outcome = static_cast<Outcome>(GetParam().code);
  bench.script.text = GetParam().text;
  bench.dispatcher->Issue(Queries(1));
  while (bench.recorder.done() == 0) std::this_thread::yield();
  bench.dispatcher.reset();
  EXPECT_EQ(bench.recorder.is_lost(), GetParam().is_lost);
  EXPECT_EQ(bench.told.count(), GetParam().is_lost ? 0u : 1u);
  const auto failures = bench.recorder.failures();
  ASSERT_EQ(failures.size(), 1u);
  EXPECT_THAT(failures.begin()->first, ::testing::HasSubstr(GetParam().text));
}

INSTANTIATE_TEST_SUITE_P(
    Codes, DispatcherFailure,
    ::testing::Values(FailureCase{StatusCode::kInvalidArgument, "no such input", false},
                      FailureCase{StatusCode::kUnavailable, "Exceeds maximum queue size", false},
                      FailureCase{StatusCode::kUnavailable, "the server is shutting down", true}));

TEST(Dispatcher, ClosingAbandonsWhatIsUnderWay) {
  Bench bench(0);
  bench.script.per_turn = 0;
  bench.dispatcher->Issue(Queries(5));
  bench.dispatcher.reset();
  const auto failures = bench.recorder.failures();
  // Those that were still to be sent have no answer at all.
  for (const auto& [text, count] : failures) EXPECT_THAT(text, ::testing::HasSubstr("no answer"));
}

}  // namespace
}  // namespace penstock::loadgen
