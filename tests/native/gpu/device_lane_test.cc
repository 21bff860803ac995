// Lanes on a device by each way of calling it: in gpu_test on fake GPUs, in cuda_test on a real one. The
// whole path of a batch, graphs and what they may hold, and the end when the device is lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "row_harness.h"

namespace penstock::gpu {
namespace {

using ::testing::Contains;
using ::testing::Field;

class DeviceLaneTest : public RowDeviceTest {
 protected:
  // Batches of 1 to 8 rows, all of which are answered rightly.
  void RunMany(LaneGroup& group, int count) {
    Ledger ledger(engine_);
    for (int i = 0; i < count; ++i) {
      auto lease = group.Acquire();
      ASSERT_TRUE(lease.ok()) << lease.status().ToString();
      ledger.Submit(group, std::move(*lease), static_cast<uint32_t>(i) % 8 + 1);
    }
    ledger.AwaitAll();
    EXPECT_EQ(ledger.succeeded(), count);
    EXPECT_EQ(ledger.wrong(), 0);
  }
  static uint64_t GraphRuns(const LaneGroup& group) {
    uint64_t graph_runs = 0;
    for (const uint64_t runs : group.counts().graph_runs) graph_runs += runs;
    return graph_runs;
  }
};

TEST_P(DeviceLaneTest, DoubleBuffered_AnswersAreRightAndGraphsAreUsed) {
  auto group = Load({});
  ASSERT_NE(group, nullptr);
  for (const Bucket& bucket : group->table().buckets()) {
    EXPECT_TRUE(bucket.has_graph && bucket.graph_ns && bucket.eager_ns) << bucket.rows;
  }
  RunMany(*group, 400);
  EXPECT_GE(GraphRuns(*group), 200U) << "batches of 1, 2, 4 and 8 rows";
}

TEST_P(DeviceLaneTest, WithoutGraphs_AnswersAreRight) {
  auto group = Load({.graph_budget_bytes = 0});
  ASSERT_NE(group, nullptr);
  RunMany(*group, 100);
  EXPECT_EQ(GraphRuns(*group), 0U);
  EXPECT_EQ(group->counts().uncaptured_runs, 100U);
}

// Four graphs, each with a context of 40 MiB.
TEST_P(DeviceLaneTest, GraphBudgetThatRunsOut_IsKeptToAndTheRestRunsWithoutGraphs) {
  const QuietLog quiet;
  engine_.context_bytes = size_t{40} << 20;
  constexpr size_t kBudget = size_t{100} << 20;
  auto group = Load({.lanes = 1, .slots_per_lane = 1, .graph_budget_bytes = kBudget});
  ASSERT_NE(group, nullptr);
  EXPECT_LE(group->graph_bytes(), kBudget);
  const auto& buckets = group->table().buckets();
  EXPECT_TRUE(buckets.front().has_graph);
  EXPECT_THAT(buckets, Contains(Field(&Bucket::has_graph, false)));
  RunMany(*group, 40);
  EXPECT_GT(group->counts().uncaptured_runs, 0U);
}

INSTANTIATE_TEST_SUITE_P(Apis, DeviceLaneTest, ::testing::Values(RowApi::kRuntime, RowApi::kDriver),
                         NameOf);

constexpr int kBeforeTheTrap = 4;
constexpr float kTrapAt = 6 * 16 + 6 * 4;  // row 6 of the ledger's batch 6

// In a process of its own, which is lost with the device. Says what went wrong, or exits 0.
[[noreturn]] void LoseTheDevice(RowApi which) {
  const RowDevice rows = *OpenRowDevice(which, PENSTOCK_TEST_DRIVER);
  const auto device = Device::Open(*rows.api, Clock::System(), {});
  const auto pool = PinnedPool::Create(*rows.api, (*device)->health(),
                                       /*block_bytes=*/size_t{128} << 10, /*blocks=*/4);
  RowEngine engine(rows);
  engine.trap_at = kTrapAt;
  auto group = LaneGroup::Load((*device)->resources(**pool), engine, {});
  Ledger ledger(engine);
  const auto submit = [&] {
    auto lease = (*group)->Acquire();
    if (!lease.ok()) return lease.status().code();
    ledger.Submit(**group, *std::move(lease), 8);
    return StatusCode::kOk;
  };
  while (ledger.submitted() < kBeforeTheTrap) submit();
  ledger.AwaitAll();
  const bool was_well = ledger.succeeded() == kBeforeTheTrap;
  StatusCode refused = StatusCode::kOk;
  while (refused == StatusCode::kOk) refused = submit();
  ledger.AwaitAll();
  const int lost = ledger.Count(StatusCode::kUnavailable);
  const bool is_right = was_well && refused == StatusCode::kUnavailable && lost > 0 &&
                        (*device)->health().is_faulted() &&
                        ledger.succeeded() + lost == ledger.submitted() && ledger.wrong() == 0 &&
                        ledger.twice() == 0;
  std::fprintf(stderr, "lost: %s\n", (*device)->health().fault().ToString().c_str());
  std::_Exit(is_right ? 0 : 1);
}

class DeviceLaneDeathTest : public RowDeviceTest {};

TEST_P(DeviceLaneDeathTest, KernelThatTraps_LosesTheDeviceAndAnswersEverything) {
  // Threadsafe: the child starts anew, as a context of CUDA's does not survive a fork.
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(LoseTheDevice(GetParam()), ::testing::ExitedWithCode(0),
              "cudaErrorLaunchFailure|cudaErrorIllegalInstruction|CUDA_ERROR_LAUNCH_FAILED|"
              "CUDA_ERROR_ILLEGAL_INSTRUCTION");
}

INSTANTIATE_TEST_SUITE_P(Apis, DeviceLaneDeathTest,
                         ::testing::Values(RowApi::kRuntime, RowApi::kDriver), NameOf);

}  // namespace
}  // namespace penstock::gpu
