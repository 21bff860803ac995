// Lanes of a host without memory: a batch fails, and its slot comes back. Allocations are made to fail by
// this program's own operator new.
#include <gtest/gtest.h>

#include <new>
#include <utility>

#include "gpu_harness.h"
#include "testing/scarce_memory.h"

namespace penstock::gpu {
namespace {

class LaneMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto group =
        device_.Load({.lanes = 1, .slots_per_lane = 1, .graph_budget_bytes = 0, .measure_runs = 0});
    ASSERT_TRUE(group.ok());
    group_ = std::move(*group);
  }
  void ExpectRight() {
    SlotLease lease = group_->TryAcquire();
    ASSERT_TRUE(lease);
    Ledger ledger(device_);
    ledger.Submit(*group_, std::move(lease), 8);
    ledger.AwaitAll();
    EXPECT_EQ(ledger.succeeded(), 1);
    EXPECT_EQ(ledger.wrong(), 0);
  }

  FakeDevice device_;
  std::unique_ptr<LaneGroup> group_;
};

TEST_F(LaneMemoryTest, NoneBeforeABatchIsEnqueued_ThrowsAndGivesTheSlotBack) {
  for (const int allocations : {0, 1}) {  // what is watched, and what is called then
    SlotLease lease = group_->TryAcquire();
    ASSERT_TRUE(lease);
    BatchDone done = [](const Status&, SlotLease) { FAIL() << "nothing was enqueued"; };
    const int calls = device_.gpu.calls();
    const auto submit = [&] {
      const ScarceMemory scarce(allocations);
      group_->Submit(std::move(lease), 8, std::move(done));
    };
    EXPECT_THROW(submit(), std::bad_alloc);
    EXPECT_EQ(device_.gpu.calls(), calls);
    ExpectRight();
  }
}

TEST_F(LaneMemoryTest, NoneWhileABatchIsEnqueued_FailsItAndGivesTheSlotBack) {
  Ledger ledger(device_);
  device_.engine.CallAtNextEnqueue([] { throw std::bad_alloc(); });
  device_.gpu.HoldStreams();
  ledger.Submit(*group_, group_->TryAcquire(), 8);
  EXPECT_FALSE(group_->TryAcquire()) << "its inputs are still being copied";
  device_.gpu.ReleaseStreams();
  ledger.AwaitAll();
  EXPECT_EQ(ledger.Count(StatusCode::kResourceExhausted), 1);
  ExpectRight();
}

}  // namespace
}  // namespace penstock::gpu
