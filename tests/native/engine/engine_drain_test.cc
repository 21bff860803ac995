// How versions and engines end: drain in time and out of time, shutdown with work in flight.

#include <gtest/gtest.h>

#include <thread>

#include "engine_harness.h"
#include "testing/fake_clock.h"

namespace penstock {
namespace {

// Passes `gate`, then echoes.
FakeModelSpec::Execute Gated(Gate& gate) {
  return [&gate](auto inputs, auto wanted, auto* outputs) {
    gate.Pass();
    return Echo(inputs, wanted, outputs);
  };
}

TEST(EngineDrainTest, Drain_FinishesWhatIsQueuedAndRunning) {
  Gate gate;
  EngineHarness harness;
  const auto version = harness.Serve(IdentitySpec(), Gated(gate));
  harness.Send(InferMessage().Row({1}));
  gate.AwaitArrived(1);
  for (int i = 0; i < 20; ++i) harness.Send(InferMessage().Row({2}));
  harness.engine.Forget("m");
  std::thread drainer([&] { EXPECT_TRUE(harness.engine.Drain(version, kLongNs)); });
  gate.Open();
  for (const Outcome& outcome : harness.Await(21)) EXPECT_TRUE(outcome.status.ok());
  drainer.join();
}

TEST(EngineDrainTest, DrainOutOfTime_FailsTheQueueAndLeavesTheRunningBatch) {
  Gate gate;
  FakeClock clock;
  EngineHarness harness({.backend_directories = {}, .limits = {}, .clock = &clock});
  const auto version = harness.Serve(IdentitySpec(), Gated(gate));
  harness.Send(InferMessage().Row({1}));
  gate.AwaitArrived(1);
  harness.Send(InferMessage().Row({2}));
  EXPECT_FALSE(harness.engine.Drain(version, 0));
  const Outcome queued = harness.Await(1)[0];
  EXPECT_EQ(queued.status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(queued.status.message(), "model 'm' version 1 was unloaded");
  gate.Open();
  EXPECT_TRUE(harness.Await(1)[0].status.ok());
  EXPECT_TRUE(harness.engine.Drain(version, kLongNs));
  EXPECT_TRUE(harness.engine.Drain(version, kLongNs));
}

TEST(EngineDrainTest, DrainedVersion_FreesItsModelThoughRequestsStillPinIt) {
  std::atomic<int> live_models{0};
  EngineHarness harness;
  auto model = std::make_shared<FakeModel>(FakeModelSpec{IdentitySignature(), &Echo, &live_models});
  auto version = *harness.engine.CreateVersion(std::move(model), IdentitySpec());
  harness.engine.Start(version);
  harness.engine.SetServing("m", {version}, {});
  const RequestRef pin = harness.Send(InferMessage().Row({1}));
  harness.Await(1);
  EXPECT_EQ(live_models, 1);
  EXPECT_TRUE(harness.engine.Drain(version, kLongNs));
  EXPECT_EQ(live_models, 0);
}

TEST(EngineDrainTest, VersionNeverStarted_IsFreedQuietly) {
  std::atomic<int> live_models{0};
  EngineHarness harness;
  {
    auto model =
        std::make_shared<FakeModel>(FakeModelSpec{IdentitySignature(), &Echo, &live_models});
    const auto version = harness.engine.CreateVersion(std::move(model), IdentitySpec());
    ASSERT_TRUE(version.ok());
  }
  EXPECT_EQ(live_models, 0);
}

TEST(EngineDrainTest, RequestsOfAVersionNeverStarted_AreFailedByItsDrain) {
  EngineHarness harness;
  const auto version = harness.Create(IdentitySpec());
  harness.engine.SetServing("m", {version}, {});
  harness.Send(InferMessage().Row({1}));
  EXPECT_TRUE(harness.engine.Drain(version, 0));
  EXPECT_EQ(harness.Await(1)[0].status.code(), StatusCode::kUnavailable);
}

TEST(EngineDrainTest, RequestsOfAVersionNeverStarted_AreFailedByTheShutdown) {
  EngineHarness harness;
  const auto version = harness.Create(IdentitySpec());
  harness.engine.SetServing("m", {version}, {});
  harness.Send(InferMessage().Row({1}));
  EXPECT_TRUE(harness.engine.Shutdown(kLongNs));
  std::vector<RequestRef> ended;
  harness.completions.Take(&ended);
  ASSERT_EQ(ended.size(), 1U);
  EXPECT_EQ(AsInfer(ended[0]).status.code(), StatusCode::kUnavailable);
}

TEST(EngineDrainTest, DrainsThatMeet_BothSucceed) {
  for (int round = 0; round < 20; ++round) {
    EngineHarness harness;
    VersionSpec spec = IdentitySpec();
    spec.instance_count = 2;
    const auto version = harness.Serve(spec);
    std::thread other([&] { EXPECT_TRUE(harness.engine.Drain(version, kLongNs)); });
    EXPECT_TRUE(harness.engine.Shutdown(kLongNs));
    other.join();
  }
}

TEST(EngineDrainTest, StartThatMeetsShutdown_LeavesNoThread) {
  for (int round = 0; round < 20; ++round) {
    EngineHarness harness;
    const auto version = harness.Create(IdentitySpec());
    std::thread other([&] { harness.engine.Start(version); });
    EXPECT_TRUE(harness.engine.Shutdown(kLongNs));
    other.join();
    EXPECT_TRUE(harness.engine.Drain(version, kLongNs));
  }
}

TEST(EngineDrainTest, Shutdown_RefusesNewAndEndsAllThatWasAccepted) {
  Gate gate;
  EngineHarness harness;
  harness.Serve(IdentitySpec(), Gated(gate));
  harness.Send(InferMessage().Row({1}));
  gate.AwaitArrived(1);
  harness.Send(InferMessage().Row({2}));
  EXPECT_FALSE(harness.engine.Shutdown(0));
  const Outcome late = [&] {
    harness.Send(InferMessage().Row({3}));
    const auto outcomes = harness.Await(2);
    EXPECT_EQ(outcomes[0].status.code(), StatusCode::kUnavailable);
    return outcomes[1];
  }();
  EXPECT_EQ(late.status.message(),
            "GRPC server is shutting down and has stopped accepting new requests.");
  gate.Open();
  harness.Await(1);
  EXPECT_TRUE(harness.engine.Shutdown(kLongNs));
  EXPECT_EQ(harness.engine.admission().inflight(), 0U);
}

TEST(EngineDrainTest, QueuedDeadlines_AreKeptByTheEnginesTimer) {
  Gate gate;
  FakeClock clock;
  EngineHarness harness({.backend_directories = {}, .limits = {}, .clock = &clock});
  harness.Serve(IdentitySpec(), Gated(gate));
  harness.Send(InferMessage().Row({1}));
  gate.AwaitArrived(1);
  harness.Send(InferMessage().Row({2}), clock.NowNs() + 100);
  harness.Send(InferMessage().Row({3}).Parameter("timeout", 2, 1));
  clock.AwaitWaitersUntil(clock.NowNs() + 100);
  clock.Advance(1000);
  std::vector<Outcome> ended = harness.Await(2);
  EXPECT_EQ(ended[0].status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ended[1].status.message(), "Request timeout expired");
  gate.Open();
  harness.Await(1);
}

TEST(EngineDrainTest, CancelledRequests_EndOnceQueuedOrRunning) {
  Gate gate;
  EngineHarness harness;
  const auto version = harness.Serve(IdentitySpec(), Gated(gate));
  const RequestRef running = harness.Send(InferMessage().Row({1}));
  gate.AwaitArrived(1);
  const RequestRef queued = harness.Send(InferMessage().Row({2}));
  harness.engine.Cancel(queued);
  EXPECT_EQ(harness.Await(1)[0].status.code(), StatusCode::kCancelled);
  harness.engine.Cancel(running);
  gate.Open();
  EXPECT_EQ(harness.Await(1)[0].status.code(), StatusCode::kCancelled);
  harness.engine.Cancel(running);
  const VersionStatistics statistics = version->statistics();
  EXPECT_EQ(statistics.success.count, 0U);
  EXPECT_EQ(statistics.inference_count, 0U);
  EXPECT_EQ(statistics.fail.count, 1U);  // of the queued one the batcher's counters know
  EXPECT_EQ(statistics.failures.at(StatusCode::kCancelled), 1U);
}

}  // namespace
}  // namespace penstock
