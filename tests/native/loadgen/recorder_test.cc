#include "native/recorder.h"

#include <gmock/gmock.h>

#include <protozero/pbf_writer.hpp>

#include "testing/fake_clock.h"
#include "told.h"

namespace penstock::loadgen {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

std::string ResponseWith(std::string_view raw) {
  std::string message;
  protozero::pbf_writer writer(message);
  writer.add_string(1, "m");
  writer.add_bytes(6, raw.data(), raw.size());
  return message;
}

TEST(Recorder, KeepsEachDifferentAnswerOnceWithItsCount) {
  Recorder recorder({.samples = 2});
  Told told;
  recorder.SetComplete(told.Listener());
  for (const char* answer : {"a", "b", "a"}) recorder.Answer({1, 1}, recorder.NowNs(), answer);
  recorder.Publish();
  EXPECT_TRUE(recorder.answers()[0].empty());
  ASSERT_EQ(recorder.answers()[1].size(), 2u);
  EXPECT_EQ(recorder.answers()[1][0].message, "a");
  EXPECT_EQ(recorder.answers()[1][0].count, 2u);
  EXPECT_EQ(recorder.answers()[1][1].count, 1u);
  EXPECT_EQ(recorder.done(), 3u);
}

TEST(Recorder, CountsLatenciesAndBinsByTheClock) {
  FakeClock clock;
  Recorder recorder({.samples = 1, .clock = &clock});
  Told told;
  recorder.SetComplete(told.Listener());
  const int64_t issued_ns = clock.NowNs();
  clock.Advance(1'000);
  recorder.Answer({1, 0}, issued_ns, "a");
  clock.Advance(2 * Recorder::kBinNs);
  recorder.Answer({2, 0}, clock.NowNs() - 100, "a");
  recorder.Publish();
  EXPECT_THAT(recorder.bins(), ElementsAre(1, 0, 1));
  EXPECT_EQ(recorder.first_ns(), 1'000);
  EXPECT_EQ(recorder.last_ns(), 1'000 + 2 * Recorder::kBinNs);
  EXPECT_EQ(recorder.latency().count(), 2u);
  EXPECT_EQ(recorder.latency().max(), 1'000);
}

TEST(Recorder, GivesTensorsToLoadGenOnlyWhereItWantsThem) {
  for (const bool gives_tensors : {false, true}) {
    Recorder recorder({.samples = 1, .gives_tensors = gives_tensors});
    Told told;
    recorder.SetComplete(told.Listener());
    recorder.Answer({7, 0}, recorder.NowNs(), ResponseWith("tensor"));
    recorder.Answer({8, 0}, recorder.NowNs(), "\xff no message");
    recorder.Publish();
    const char* const wanted = gives_tensors ? "tensor" : "";
    EXPECT_THAT(told.Await(2), ElementsAre(Pair(7, wanted), Pair(8, "")));
  }
}

TEST(Recorder, FailsASampleWhoseAnswersNeverAgree) {
  Recorder recorder({.samples = 1});
  Told told;
  recorder.SetComplete(told.Listener());
  for (size_t i = 0; i < Recorder::kMostDifferent + 2; ++i) {
    recorder.Answer({i, 0}, recorder.NowNs(), std::to_string(i));
  }
  recorder.Publish();
  EXPECT_EQ(recorder.answers()[0].size(), Recorder::kMostDifferent);
  EXPECT_THAT(recorder.failures(),
              ElementsAre(Pair("more than 256 different answers to sample 0", 2)));
  EXPECT_EQ(told.count(), Recorder::kMostDifferent + 2);
}

TEST(Recorder, BoundsTheKindsOfFailures) {
  Recorder recorder({.samples = 1});
  Told told;
  recorder.SetComplete(told.Listener());
  for (size_t i = 0; i < 3 * Recorder::kMostFailures; ++i) {
    recorder.Fail({i, 0}, "failure " + std::to_string(i), false);
  }
  recorder.Publish();
  const auto failures = recorder.failures();
  EXPECT_EQ(failures.size(), Recorder::kMostFailures + 1);
  EXPECT_EQ(failures.at("other failures"), 2 * Recorder::kMostFailures);
  EXPECT_EQ(recorder.latency().count(), 0u);
}

TEST(Recorder, TellsNothingMoreOnceTheTargetIsLost) {
  Recorder recorder({.samples = 1});
  Told told;
  recorder.SetComplete(told.Listener());
  recorder.Fail({1, 0}, "connection lost", true);
  recorder.Answer({2, 0}, recorder.NowNs(), "a");
  recorder.Publish();
  EXPECT_TRUE(recorder.is_lost());
  EXPECT_EQ(told.count(), 0u);
  EXPECT_EQ(recorder.done(), 2u);
}

TEST(NullTarget, AnswersInPlace) {
  const std::vector<std::string> answers{"zero", "one"};
  Recorder recorder({.samples = 2});
  Told told;
  recorder.SetComplete(told.Listener());
  NullTarget target(&recorder, &answers);
  target.Issue(std::vector<Query>{{5, 1}, {6, 0}});
  EXPECT_EQ(told.count(), 2u);
  EXPECT_EQ(recorder.answers()[1][0].message, "one");
}

}  // namespace
}  // namespace penstock::loadgen
