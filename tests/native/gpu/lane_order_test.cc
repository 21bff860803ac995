// That each event wait of a lane is needed: without it the checker finds accesses in no order.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "gpu_harness.h"

namespace penstock::gpu {
namespace {

using ::testing::IsEmpty;
using ::testing::Not;

constexpr int kBatches = 6;
constexpr int kWaits = 2 * kBatches;  // each for the inputs, each for the outputs

Result<std::unique_ptr<LaneGroup>> Load(FakeDevice& device, size_t slots, bool with_graphs) {
  return device.Load({.lanes = 1,
                      .slots_per_lane = slots,
                      .graph_budget_bytes = with_graphs ? size_t{1} << 20 : 0,
                      .measure_runs = 0});
}

// Runs some batches on a lane with a slot for each while streams are held, so that nothing is ordered
// by chance, and answers how many were wrong.
int RunBatches(FakeDevice& device, int wait_to_drop, bool with_graphs) {
  auto group = Load(device, kBatches, with_graphs);
  EXPECT_TRUE(group.ok());
  device.gpu.DropWait(wait_to_drop);
  Ledger ledger(device);
  device.gpu.HoldStreams();
  for (int i = 0; i < kBatches; ++i) ledger.Submit(**group, (*group)->TryAcquire(), 8);
  device.gpu.ReleaseStreams();
  ledger.AwaitAll();
  EXPECT_EQ(ledger.succeeded(), kBatches);
  return ledger.wrong();
}

class LaneOrderTest : public ::testing::TestWithParam<bool> {};

TEST_P(LaneOrderTest, WithAllWaits_NothingRaces) {
  FakeDevice device;
  EXPECT_EQ(RunBatches(device, /*wait_to_drop=*/0, GetParam()), 0);
  EXPECT_EQ(device.gpu.waits(), kWaits) << "no wait more than is needed";
  EXPECT_THAT(device.gpu.races(), IsEmpty());
}

// The data race is real, not only the checker's, so that ThreadSanitizer ends the test; to see that:
// --gtest_also_run_disabled_tests.
#if defined(__SANITIZE_THREAD__)
#define MAYBE_AnyWaitThatIsDropped_IsFound DISABLED_AnyWaitThatIsDropped_IsFound
#else
#define MAYBE_AnyWaitThatIsDropped_IsFound AnyWaitThatIsDropped_IsFound
#endif

TEST_P(LaneOrderTest, MAYBE_AnyWaitThatIsDropped_IsFound) {
  for (int nth = 1; nth <= kWaits; ++nth) {
    FakeDevice device;
    RunBatches(device, nth, GetParam());
    EXPECT_THAT(device.gpu.races(), Not(IsEmpty())) << "wait " << nth;
  }
}

// With the inputs' stream made slow, what the checker finds is a wrong answer as well.
TEST_P(LaneOrderTest, DroppedWaitForInputs_GivesAWrongAnswer) {
  Mutex mu;
  CondVar answered;
  bool is_answered = false;
  FakeDevice device;
  auto group = Load(device, /*slots=*/1, GetParam());
  ASSERT_TRUE(group.ok());
  Ledger ledger(device);
  device.gpu.DropWait(1);
  // The first copy waits until the batch is answered, but for the wait that is missing.
  device.gpu.DelayNextCopy([&] {
    MutexLock lock(mu);
    while (!is_answered) answered.Wait(mu);
  });
  ledger.Submit(**group, (*group)->TryAcquire(), 8);
  ledger.AwaitAll();
  {
    MutexLock lock(mu);
    is_answered = true;
    answered.NotifyAll();
  }
  EXPECT_EQ(ledger.wrong(), 1);
}

INSTANTIATE_TEST_SUITE_P(WithAndWithoutGraphs, LaneOrderTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Graphs" : "Engine"; });

}  // namespace
}  // namespace penstock::gpu
