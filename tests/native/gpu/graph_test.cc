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
    auto lease = group.Acquire(kNever);
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

TEST(GraphTest, KnownTimes_DecideWhatIsPadded) {
  FakeDevice device;
  BucketTable times = *BucketTable::Create({1, 2, 4, 8}, 8, true);
  times.bucket(0) = {1, false, 10, 100};
  times.bucket(1) = {2, false, 10, 200};
  times.bucket(2) = {4, false, 10, 300};   // 3 rows: padded to 4
  times.bucket(3) = {8, false, 900, 400};  // 5 rows: as they are
  auto group = device.Load({.known_times = times});
  ASSERT_TRUE(group.ok());
  RunEach(device, **group, {3, 3, 5});
  const RunCounts counts = (*group)->counts();
  EXPECT_THAT(counts.graph_runs, ElementsAre(0, 0, 2, 0));
  EXPECT_THAT(counts.padded_rows, ElementsAre(0, 0, 2, 0));
  EXPECT_EQ(counts.uncaptured_runs, 1U);
}

TEST(GraphTest, Measured_EveryBucketHasTimes) {
  FakeDevice device;
  auto group = device.Load({.measure_runs = 3});
  ASSERT_TRUE(group.ok());
  for (const Bucket& bucket : (*group)->table().buckets()) {
    EXPECT_TRUE(bucket.eager_ns.has_value() && bucket.graph_ns.has_value()) << bucket.rows;
  }
}

TEST(GraphTest, EngineOfFixedSizes_IsPaddedWithoutGraphs) {
  FakeDevice device({}, {.takes_any_rows = false});
  auto group = device.Load({.graph_budget_bytes = 0});
  ASSERT_TRUE(group.ok());
  RunEach(device, **group, {3, 7});
  EXPECT_EQ((*group)->counts().uncaptured_runs, 2U);
}

TEST(GraphTest, Budget_IsSpentOnSmallBatchesFirst) {
  FakeDevice device({.graph_bytes_per_work = 10});  // 20 a graph
  auto group =
      device.Load({.lanes = 1, .slots_per_lane = 2, .graph_budget_bytes = 100, .measure_runs = 0});
  ASSERT_TRUE(group.ok());
  EXPECT_THAT(Graphs(**group), ElementsAre(true, true, false, false));
  EXPECT_LE((*group)->graph_bytes(), 100U);
  RunEach(device, **group, {1, 2, 4, 8});
  EXPECT_EQ((*group)->counts().uncaptured_runs, 2U);
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
  EXPECT_EQ(device.faults.load(), 1);
}

TEST(GraphTest, WorkThatAFailedCaptureLeft_IsOverBeforeTheFirstBatch) {
  FakeDevice device;
  // Two for the slot, then one for each bucket: the last one's, behind which nothing else waits.
  device.gpu.FailCall("SynchronizeStream", 2 + 4, Error::kInvalidValue);
  auto group = device.Load({.lanes = 1, .slots_per_lane = 1, .measure_runs = 0});
  ASSERT_TRUE(group.ok());
  EXPECT_THAT(Graphs(**group), ElementsAre(true, true, true, false));
  RunEach(device, **group, {8});
  EXPECT_THAT(device.gpu.races(), ElementsAre());
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
  EXPECT_EQ(device.pool->usage().blocks_in_use, 0U);
}

TEST(GraphTest, FailedLoad_GivesEverythingBack) {
  FakeDevice device;
  const size_t before = device.gpu.live_objects();
  size_t failed = 0;
  size_t loads = 0;
  const QuietLog quiet;
  for (int nth = 1; nth < 400; nth += 3) {
    device.gpu.FailCall("", nth, Error::kInvalidValue);
    const auto group = device.Load({.lanes = 1});
    ++loads;
    if (!group.ok()) ++failed;
  }
  device.gpu.FailCall("", 0, Error::kSuccess);
  EXPECT_GT(failed, 8U);
  // A call that gives back may be the one that fails: one thing each time, at most.
  EXPECT_LE(device.gpu.live_objects() - before, loads - failed);
  EXPECT_EQ(device.pool->usage().blocks_in_use, 0U);
}

}  // namespace
}  // namespace penstock::gpu
