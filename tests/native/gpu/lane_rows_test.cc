// Lanes of an engine that pays for another number of rows than it ran last.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "gpu_harness.h"
#include "testing/fake_clock.h"

namespace penstock::gpu {
namespace {

using ::testing::IsEmpty;

// A row takes 1 us; a change 20, or as said.
struct PayingDevice {
  explicit PayingDevice(int64_t change_ns = 20'000, bool row_changes_cost = true)
      : device({},
               {.row_changes_cost = row_changes_cost,
                .clock = &clock,
                .row_ns = 1000,
                .change_ns = change_ns},
               clock) {}

  std::unique_ptr<LaneGroup> Load(LaneGroupOptions options = {}) {
    options.graph_budget_bytes = 0;
    options.lanes = 1;
    auto group = device.Load(options);
    EXPECT_TRUE(group.ok()) << group.status().ToString();
    changes_at_load = device.engine.row_changes();
    return *std::move(group);
  }
  int changes() const { return device.engine.row_changes() - changes_at_load; }

  const QuietLog quiet;
  FakeClock clock;
  FakeDevice device;
  int changes_at_load = 0;
};

// One after another, unless there are slots for two.
void RunAll(PayingDevice& paying, LaneGroup& group, const std::vector<uint32_t>& batches) {
  Ledger ledger(paying.device);
  for (const uint32_t rows : batches) {
    auto lease = group.Acquire();
    ASSERT_TRUE(lease.ok());
    ledger.Submit(group, std::move(*lease), rows);
  }
  ledger.AwaitAll();
  EXPECT_EQ(ledger.succeeded(), static_cast<int>(batches.size()));
  EXPECT_EQ(ledger.wrong(), 0);
  EXPECT_THAT(paying.device.gpu.races(), IsEmpty());
}

std::vector<uint32_t> Alternating(int times) {
  std::vector<uint32_t> batches;
  for (int i = 0; i < times; ++i) batches.insert(batches.end(), {8, 1, 5});
  return batches;
}

TEST(LaneRowsTest, Load_MeasuresWhatAChangeCosts) {
  PayingDevice paying;
  const auto group = paying.Load();
  EXPECT_TRUE(group->table().ChangesCost());
  for (const Bucket& bucket : group->table().buckets()) {
    EXPECT_EQ(bucket.eager_ns, bucket.rows * 1000);
    EXPECT_EQ(group->table().ChangeNs(bucket.rows), 20'000);
  }
}

TEST(LaneRowsTest, AlternatingSizes_RunPaddedAndAreAnsweredRight) {
  PayingDevice paying;
  const auto group = paying.Load();
  RunAll(paying, *group, Alternating(100));
  EXPECT_LE(paying.changes(), 1) << "the load's last run was of 8 rows, too";
  const RunCounts counts = group->counts();
  EXPECT_EQ(counts.uncaptured_runs, 300U);
  EXPECT_EQ(counts.uncaptured_padded_rows, 100 * (7 + 3U));
  EXPECT_EQ(counts.row_changes, 1U);
}

TEST(LaneRowsTest, SmallBatchesFromNowOn_ChangeOnce) {
  PayingDevice paying;
  const auto group = paying.Load();
  RunAll(paying, *group, {8});
  const int before = paying.changes();
  RunAll(paying, *group, std::vector<uint32_t>(100, 2));
  EXPECT_EQ(paying.changes() - before, 1);
  // 6 us each, and there and back 40: the seventh is run as it is.
  EXPECT_EQ(group->counts().uncaptured_padded_rows, 6 * 6U);
  EXPECT_EQ(group->counts().row_changes, 2U);
}

TEST(LaneRowsTest, ChangesThatCostNothing_LeaveEachBatchItsOwnRows) {
  for (const int64_t change_ns : {0, 40}) {
    PayingDevice paying(change_ns);
    const auto group = paying.Load();
    EXPECT_FALSE(group->table().ChangesCost());
    RunAll(paying, *group, Alternating(20));
    EXPECT_GE(paying.changes(), 59);
    EXPECT_EQ(group->counts().uncaptured_padded_rows, 0U);
    EXPECT_EQ(group->counts().row_changes, 0U);
  }
}

TEST(LaneRowsTest, EngineThatDoesNotSay_IsNeitherMeasuredNorPadded) {
  PayingDevice paying(20'000, /*row_changes_cost=*/false);
  const auto group = paying.Load();
  for (const Bucket& bucket : group->table().buckets()) EXPECT_FALSE(bucket.first_ns);
  EXPECT_EQ(paying.changes_at_load, 4) << "one for each size";
  RunAll(paying, *group, Alternating(20));
  EXPECT_GE(paying.changes(), 59);
  EXPECT_EQ(group->counts().uncaptured_padded_rows, 0U);
}

TEST(LaneRowsTest, Unmeasured_IsNotPadded) {
  PayingDevice paying;
  const auto group = paying.Load({.measure_runs = 0});
  RunAll(paying, *group, Alternating(20));
  EXPECT_EQ(group->counts().uncaptured_padded_rows, 0U);
}

TEST(LaneRowsTest, SizesThatAreSaid_AreMeasuredFromOneRowOn) {
  PayingDevice paying;
  const auto group = paying.Load({.bucket_rows = {8}});
  EXPECT_TRUE(group->table().ChangesCost());
  RunAll(paying, *group, {8});
  RunAll(paying, *group, std::vector<uint32_t>(100, 1));
  EXPECT_EQ(group->counts().row_changes, 2U);
}

TEST(LaneRowsTest, EngineOfOneRow_HasNothingToChange) {
  FakeClock clock;
  FakeDevice device({}, {.max_rows = 1, .row_changes_cost = true, .clock = &clock}, clock);
  auto group = device.Load({.graph_budget_bytes = 0});
  ASSERT_TRUE(group.ok());
  EXPECT_FALSE((*group)->table().ChangesCost());
}

TEST(LaneRowsTest, FailedRun_LeavesTheNextBatchToBeginAnew) {
  PayingDevice paying;
  const auto group = paying.Load({.slots_per_lane = 1});
  RunAll(paying, *group, {8});
  Ledger ledger(paying.device);
  paying.device.engine.FailEnqueue(1);
  ledger.Submit(*group, *group->Acquire(), 1);
  ledger.AwaitAll();
  EXPECT_EQ(ledger.Count(StatusCode::kInternal), 1);
  RunAll(paying, *group, {1});
  EXPECT_EQ(group->counts().uncaptured_padded_rows, 0U);
}

// In a slot that has never had as many rows they are zeros, whatever a route brings in front of them.
TEST(LaneRowsTest, BatchesOfRoutes_RunPaddedAndAreAnsweredRight) {
  PayingDevice paying;
  const auto group = paying.Load();
  RunAll(paying, *group, {8});
  Ledger ledger(paying.device);
  for (const int device : {0, kHostMemory}) {
    for (const uint32_t rows : {1U, 3U}) {
      const auto room = ClientRoom::TryMake(paying.device.gpu, ledger.RoomBytes(), device);
      ASSERT_NE(room, nullptr);
      ledger.SubmitRouted(*group, *group->Acquire(), rows, {.room = room});
      ledger.AwaitAll();
    }
  }
  EXPECT_EQ(ledger.succeeded(), 4);
  EXPECT_EQ(ledger.wrong(), 0);
  EXPECT_EQ(group->counts().row_changes, 1U);
  EXPECT_THAT(paying.device.gpu.races(), IsEmpty());
}

}  // namespace
}  // namespace penstock::gpu
