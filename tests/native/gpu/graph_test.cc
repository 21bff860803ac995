// Graphs: which are captured, what they may hold, what is counted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "gpu/lane_group.h"
#include "gpu_harness.h"

namespace penstock::gpu {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<bool> Graphs(const LaneGroup& group) {
  std::vector<bool> graphs;
  for (const Bucket& bucket : group.table().buckets()) graphs.push_back(bucket.has_graph);
  return graphs;
}

void RunEach(FakeDevice& device, LaneGroup& group, const std::vector<uint32_t>& rows) {
  Ledger ledger(device);
  for (const uint32_t n : rows) {
    auto lease = group.Acquire();
    ASSERT_TRUE(lease.ok());
    ledger.Submit(group, std::move(*lease), n);
  }
  ledger.AwaitAll();
  EXPECT_EQ(ledger.succeeded(), static_cast<int>(rows.size()));
  EXPECT_EQ(ledger.wrong(), 0);
}

TEST(GraphTest, Load_CapturesEachBucketForEachSlot) {
  FakeDevice device({.graph_bytes_per_work = 10});
  auto group = device.Load({.lanes = 2, .slots_per_lane = 2, .measure_runs = 0});
  ASSERT_TRUE(group.ok());
  EXPECT_THAT(Graphs(**group), ElementsAre(true, true, true, true));  // 1, 2, 4, 8 rows
  EXPECT_EQ((*group)->graph_bytes(), 4 * 4 * 2 * 10U);
  EXPECT_EQ(device.engine.contexts(), 4 * 4 + 4) << "one for each graph, one for each slot";
  RunEach(device, **group, {1, 2, 4, 8, 8});
  const RunCounts counts = (*group)->counts();
  EXPECT_THAT(counts.graph_runs, ElementsAre(1, 1, 1, 2));
  EXPECT_THAT(counts.padded_rows, ElementsAre(0, 0, 0, 0));
  EXPECT_EQ(counts.uncaptured_runs, 0U);
  EXPECT_THAT(device.gpu.races(), ElementsAre());
}

TEST(GraphTest, Unmeasured_RunsOtherSizesWithoutAGraph) {
  FakeDevice device;
  auto group = device.Load({.measure_runs = 0});
  ASSERT_TRUE(group.ok());
  RunEach(device, **group, {3, 5, 8});
  EXPECT_EQ((*group)->counts().uncaptured_runs, 2U);
  EXPECT_THAT((*group)->counts().graph_runs, ElementsAre(0, 0, 0, 1));
}

TEST(GraphTest, Measured_EveryBucketHasTimes) {
  FakeDevice device;
  auto group = device.Load({.measure_runs = 3});
  ASSERT_TRUE(group.ok());
  for (const Bucket& bucket : (*group)->table().buckets()) {
    EXPECT_TRUE(bucket.eager_ns.has_value() && bucket.graph_ns.has_value()) << bucket.rows;
  }
}

TEST(GraphTest, EngineOfFixedSizes_IsPaddedToItsGraphs) {
  FakeDevice device({}, {.takes_any_rows = false});
  auto group = device.Load({.measure_runs = 0});
  ASSERT_TRUE(group.ok());
  RunEach(device, **group, {3, 3, 5});
  const RunCounts counts = (*group)->counts();
  EXPECT_THAT(counts.graph_runs, ElementsAre(0, 0, 2, 1));
  EXPECT_THAT(counts.padded_rows, ElementsAre(0, 0, 2, 3));
  EXPECT_EQ(counts.uncaptured_runs, 0U);
  EXPECT_EQ(counts.uncaptured_padded_rows, 0U);
}

TEST(GraphTest, EngineOfFixedSizes_IsPaddedWithoutGraphs) {
  FakeDevice device({}, {.takes_any_rows = false});
  auto group = device.Load({.graph_budget_bytes = 0});
  ASSERT_TRUE(group.ok());
  RunEach(device, **group, {3, 7});
  EXPECT_EQ((*group)->counts().uncaptured_runs, 2U);
  EXPECT_EQ((*group)->counts().uncaptured_padded_rows, 2U);
}

TEST(GraphTest, Budget_IsSpentOnSmallBatchesFirst) {
  FakeDevice device({.graph_bytes_per_work = 10});  // 20 a graph
  auto group =
      device.Load({.lanes = 1, .slots_per_lane = 2, .graph_budget_bytes = 100, .measure_runs = 0});
  ASSERT_TRUE(group.ok());
  EXPECT_THAT(Graphs(**group), ElementsAre(true, true, false, false));
  EXPECT_EQ((*group)->graph_bytes(), 80U);
  RunEach(device, **group, {1, 2, 4, 8});
  EXPECT_EQ((*group)->counts().uncaptured_runs, 2U);
}

TEST(GraphTest, Budget_CountsWhatContextsHold) {
  FakeDevice device({.graph_bytes_per_work = 10}, {.context_bytes = 100});  // 120 a graph
  auto group =
      device.Load({.lanes = 1, .slots_per_lane = 1, .graph_budget_bytes = 240, .measure_runs = 0});
  ASSERT_TRUE(group.ok());
  EXPECT_THAT(Graphs(**group), ElementsAre(true, true, false, false));
  EXPECT_EQ((*group)->graph_bytes(), 240U);
}

TEST(GraphTest, BucketThatOneLaneHasNoBudgetFor_IsDroppedInAllAndRefunded) {
  FakeDevice device({.graph_bytes_per_work = 10}, {.context_bytes = 100});
  auto group = device.Load(
      {.lanes = 2, .slots_per_lane = 1, .graph_budget_bytes = 3 * 120, .measure_runs = 0});
  ASSERT_TRUE(group.ok());
  EXPECT_THAT(Graphs(**group), ElementsAre(true, false, false, false));
  EXPECT_EQ((*group)->graph_bytes(), 2 * 120U);
  EXPECT_EQ(device.engine.live_contexts(), 2 + 2) << "one for each slot, one for each graph left";
  RunEach(device, **group, {1, 2, 4, 8});
  EXPECT_EQ((*group)->counts().uncaptured_runs, 3U);
}

TEST(GraphTest, NoBudget_MakesNone) {
  FakeDevice device;
  auto group = device.Load({.graph_budget_bytes = 0});
  ASSERT_TRUE(group.ok());
  EXPECT_THAT(Graphs(**group), ElementsAre(false, false, false, false));
  EXPECT_EQ(device.engine.contexts(), static_cast<int>((*group)->slots()));
  RunEach(device, **group, {1, 8});
}

TEST(GraphTest, BucketThatCannotBeCaptured_RunsWithoutAGraph) {
  FakeDevice device({}, {.synchronizes_at_rows = 4});
  auto group = device.Load({.measure_runs = 2});
  ASSERT_TRUE(group.ok());
  EXPECT_THAT(Graphs(**group), ElementsAre(true, true, false, true));
  EXPECT_EQ(device.engine.live_contexts(), 4 + 3 * 4) << "of each slot, of each graph, no other";
  RunEach(device, **group, {1, 2, 4, 8});
  EXPECT_FALSE(device.health.is_faulted());
}

TEST(GraphTest, DeviceWithoutMemoryForGraphs_RunsWithoutThem) {
  FakeDevice device({.memory_bytes = 1 << 20, .graph_bytes_per_work = 1 << 18});
  auto group = device.Load({.lanes = 1, .measure_runs = 0});
  ASSERT_TRUE(group.ok());
  EXPECT_THAT(Graphs(**group), ElementsAre(false, false, false, false));
  RunEach(device, **group, {1, 8});
}

TEST(GraphTest, DeviceThatIsLostWhileCapturing_FailsTheLoad) {
  FakeDevice device;
  device.gpu.FailCall("Instantiate", 3, Error::kLaunchFailure);
  const auto group = device.Load();
  EXPECT_EQ(group.status().code(), StatusCode::kUnavailable);
  EXPECT_TRUE(device.health.is_faulted());
}

TEST(GraphTest, WorkThatAFailedCaptureLeft_IsOverBeforeTheFirstBatch) {
  const QuietLog quiet;
  // Two for the slot, then three for each bucket, of which one before it has done anything: the last
  // one's, with and without its graph, behind which nothing else waits.
  for (const int nth : {2 + 11, 2 + 12}) {
    FakeDevice device;
    device.gpu.FailCall("SynchronizeStream", nth, Error::kInvalidValue);
    auto group = device.Load({.lanes = 1, .slots_per_lane = 1, .measure_runs = 0});
    ASSERT_TRUE(group.ok());
    EXPECT_THAT(Graphs(**group), ElementsAre(true, true, true, false)) << nth;
    RunEach(device, **group, {8});
    EXPECT_THAT(device.gpu.races(), ElementsAre());
  }
}

TEST(GraphTest, Destroyed_EverythingIsGivenBack) {
  FakeDevice device({.graph_bytes_per_work = 10});
  const size_t before = device.gpu.live_objects();
  {
    auto group = device.Load();
    ASSERT_TRUE(group.ok());
    RunEach(device, **group, {1, 3, 8});
  }
  EXPECT_EQ(device.gpu.live_objects(), before);
  EXPECT_EQ(device.gpu.live_bytes(), 0U);
  EXPECT_TRUE(device.HasAllBlocks());
}

TEST(GraphTest, FailedLoad_GivesEverythingBack) {
  FakeDevice device({}, {.context_bytes = 100});
  int failed = 0;
  const QuietLog quiet;
  for (int nth = 1; nth < 400; nth += 3) {
    const size_t before = device.gpu.live_objects();
    device.gpu.FailCall("", nth, Error::kInvalidValue);
    const bool is_loaded = device.Load({.lanes = 1}).ok();
    device.gpu.FailCall("", 0, Error::kSuccess);
    failed += is_loaded ? 0 : 1;
    // A call that gives back may be the one that fails, of a load that succeeded or a graph.
    EXPECT_LE(device.gpu.live_objects() - before, 1U) << nth;
    EXPECT_TRUE(device.HasAllBlocks());
  }
  EXPECT_GT(failed, 8);
}

}  // namespace
}  // namespace penstock::gpu
