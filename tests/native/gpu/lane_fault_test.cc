// Faults: a batch that fails fails alone, a device that is lost answers everything, once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "gpu_harness.h"

namespace penstock::gpu {
namespace {

using ::testing::IsEmpty;

constexpr int kBatches = 8;

void Submit(LaneGroup& group, Ledger& ledger, int batches) {
  for (int i = 0; i < batches; ++i) {
    auto lease = group.Acquire();
    if (!lease.ok()) {
      EXPECT_EQ(lease.status().code(), StatusCode::kUnavailable);
      return;
    }
    ledger.Submit(group, std::move(*lease), static_cast<uint32_t>(i % 8 + 1));
  }
}

class EveryCallTest : public ::testing::TestWithParam<const char*> {};

TEST_P(EveryCallTest, PlainError_FailsOneBatchAndLeavesTheLaneUsable) {
  const QuietLog quiet;
  for (int nth = 1; nth <= 6; ++nth) {
    FakeDevice device({.max_yields = 2});
    auto group = device.Load({.measure_runs = 0});
    ASSERT_TRUE(group.ok());
    Ledger ledger(device);
    device.gpu.FailCall(GetParam(), nth, Error::kInvalidValue);
    Submit(**group, ledger, 2 * kBatches);
    ledger.AwaitAll();
    EXPECT_EQ(ledger.Count(StatusCode::kInternal), 1) << nth;
    EXPECT_EQ(ledger.succeeded(), 2 * kBatches - 1) << nth;
    EXPECT_EQ(ledger.wrong(), 0);
    EXPECT_FALSE(device.health.is_faulted());
    EXPECT_THAT(device.gpu.races(), IsEmpty());
  }
}

TEST_P(EveryCallTest, StickyError_AnswersAllAndTakesNothingNew) {
  const QuietLog quiet;
  for (int nth = 1; nth <= 6; ++nth) {
    FakeDevice device({.max_yields = 2});
    auto group = device.Load({.measure_runs = 0});
    ASSERT_TRUE(group.ok());
    Ledger ledger(device);
    device.gpu.FailCall(GetParam(), nth, Error::kLaunchFailure);
    Submit(**group, ledger, 2 * kBatches);
    ledger.AwaitAll();
    EXPECT_EQ(ledger.succeeded() + ledger.Count(StatusCode::kUnavailable), ledger.submitted());
    EXPECT_GE(ledger.Count(StatusCode::kUnavailable), 1);
    EXPECT_EQ(ledger.wrong(), 0);
    EXPECT_EQ(ledger.twice(), 0);
    EXPECT_TRUE(device.health.is_faulted());
    EXPECT_EQ((*group)->Acquire().status().code(), StatusCode::kUnavailable);
  }
}

// "Launch" is a kernel without a graph: there are some at sizes that have none.
INSTANTIATE_TEST_SUITE_P(Calls, EveryCallTest,
                         ::testing::Values("CopyBatchAsync", "RecordEvent", "StreamWaitEvent",
                                           "LaunchGraph", "Launch"));

TEST(LaneFaultTest, FaultOfTheWork_NeverGivesAWrongAnswer) {
  const QuietLog quiet;
  for (int nth = 1; nth <= 30; ++nth) {
    FakeDevice device({.seed = static_cast<uint64_t>(nth), .max_yields = 3});
    auto group = device.Load({.measure_runs = 0});
    ASSERT_TRUE(group.ok());
    Ledger ledger(device);
    device.gpu.FaultWork(nth, Error::kIllegalAddress);
    Submit(**group, ledger, kBatches);
    ledger.AwaitAll();
    EXPECT_EQ(ledger.wrong(), 0);
    EXPECT_EQ(ledger.succeeded() + ledger.Count(StatusCode::kUnavailable), ledger.submitted());
    EXPECT_TRUE(device.health.is_faulted()) << nth;
  }
}

TEST(LaneFaultTest, EngineThatRefuses_FailsThatBatchInItsOwnWords) {
  FakeDevice device;
  auto group = device.Load({.graph_budget_bytes = 0, .measure_runs = 0});
  ASSERT_TRUE(group.ok());
  Ledger ledger(device);
  device.engine.FailEnqueue(3);
  Submit(**group, ledger, kBatches);
  ledger.AwaitAll();
  EXPECT_EQ(ledger.Count(StatusCode::kInternal), 1);
  EXPECT_EQ(ledger.succeeded(), kBatches - 1);
  EXPECT_FALSE(device.health.is_faulted());
}

TEST(LaneFaultTest, FailedBatch_KeepsItsSlotUntilTheDeviceIsThroughWithIt) {
  FakeDevice device;
  auto group = device.Load({.lanes = 1, .slots_per_lane = 1, .measure_runs = 0});
  ASSERT_TRUE(group.ok());
  Ledger ledger(device);
  device.gpu.HoldStreams();
  device.gpu.FailCall("LaunchGraph", 1, Error::kInvalidValue);
  ledger.Submit(**group, (*group)->TryAcquire(), 8);  // its inputs are still being copied
  EXPECT_FALSE((*group)->TryAcquire());
  device.gpu.ReleaseStreams();
  ledger.AwaitAll();
  EXPECT_EQ(ledger.Count(StatusCode::kInternal), 1);
}

TEST(LaneFaultTest, FailureOnTopOfAFailure_LosesTheDeviceAndNoBatch) {
  FakeDevice device;
  auto group = device.Load({.graph_budget_bytes = 0, .measure_runs = 0});
  ASSERT_TRUE(group.ok());
  Ledger ledger(device);
  device.engine.FailEnqueue(1);
  device.gpu.FailCall("RecordEvent", 2, Error::kInvalidValue);  // 1: inputs; 2: after the failure
  Submit(**group, ledger, 1);
  ledger.AwaitAll();
  EXPECT_EQ(ledger.Count(StatusCode::kUnavailable), 1);
  EXPECT_TRUE(device.health.is_faulted());
}

TEST(LaneFaultTest, LostDevice_IsUnloadedWithWorkInFlight) {
  FakeDevice device({.max_yields = 10});
  auto group = device.Load({.measure_runs = 0});
  ASSERT_TRUE(group.ok());
  Ledger ledger(device);
  device.gpu.HoldStreams();
  for (int i = 0; i < 4; ++i) ledger.Submit(**group, (*group)->TryAcquire(), 8);
  device.health.Fault("taken away");
  ledger.AwaitAll();  // although nothing has run
  EXPECT_EQ(ledger.Count(StatusCode::kUnavailable), 4);
  EXPECT_FALSE((*group)->TryAcquire()) << "the device may still write to the slots";
  EXPECT_EQ((*group)->Acquire().status().code(), StatusCode::kUnavailable);
  const int contexts = device.engine.live_contexts();
  device.gpu.ReleaseStreams();
  group = Result<std::unique_ptr<LaneGroup>>(std::unique_ptr<LaneGroup>());
  EXPECT_EQ(device.engine.live_contexts(), contexts) << "their destructors might wait for ever";
  EXPECT_TRUE(device.HasAllBlocks());
  EXPECT_EQ(device.Load().status().code(), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace penstock::gpu
