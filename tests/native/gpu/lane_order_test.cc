// That each event wait of a lane is needed: without it the checker finds accesses in no order.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "gpu_harness.h"

namespace penstock::gpu {
namespace {

using ::testing::IsEmpty;
using ::testing::Not;

constexpr int kOrderedBatches = 6;
constexpr int kWaits = 2 * kOrderedBatches;  // each for the inputs, each for the outputs

// What computes, and where tensors lie.
enum class Way { kEngine, kGraphs, kRooms, kOtherDevice };

const char* NameOf(Way way) {
  const char* names[] = {"Engine", "Graphs", "Rooms", "OtherDevice"};
  return names[static_cast<int>(way)];
}

// All of a batch's tensors lie in a room on a device: no copy from or to the host is there to help.
RoomUse RoomOf(FakeDevice& device, Way way, const Ledger& ledger) {
  const int number = way == Way::kOtherDevice ? 1 : 0;
  return {.room = ClientRoom::TryMake(device.gpu, ledger.RoomBytes(), number),
          .is_read_on_host = false};
}

Result<std::unique_ptr<LaneGroup>> Load(FakeDevice& device, size_t slots, Way way) {
  return device.Load({.lanes = 1,
                      .slots_per_lane = slots,
                      .graph_budget_bytes = way == Way::kGraphs ? size_t{1} << 20 : 0,
                      .measure_runs = 0});
}

// Runs some batches on a lane with a slot for each while streams are held, so that nothing is ordered
// by chance, and answers how many were wrong.
int RunBatches(FakeDevice& device, int wait_to_drop, Way way) {
  Ledger ledger(device);
  std::vector<RoomUse> rooms;  // a copy that nothing waits for goes on when its batch is answered
  for (int i = 0; i < kOrderedBatches; ++i) rooms.push_back(RoomOf(device, way, ledger));
  auto group = Load(device, kOrderedBatches, way);
  EXPECT_TRUE(group.ok());
  device.gpu.DropWait(wait_to_drop);
  device.gpu.HoldStreams();
  for (int i = 0; i < kOrderedBatches; ++i) {
    if (way == Way::kEngine || way == Way::kGraphs) {
      ledger.Submit(**group, (*group)->TryAcquire(), 8);
    } else {
      ledger.SubmitRouted(**group, (*group)->TryAcquire(), 8, rooms[i]);
    }
  }
  device.gpu.ReleaseStreams();
  ledger.AwaitAll();
  EXPECT_EQ(ledger.succeeded(), kOrderedBatches);
  return ledger.wrong();
}

class LaneOrderTest : public ::testing::TestWithParam<Way> {};

TEST_P(LaneOrderTest, WithAllWaits_NothingRaces) {
  FakeDevice device({.devices = 2});
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
    FakeDevice device({.devices = 2});
    RunBatches(device, nth, GetParam());
    EXPECT_THAT(device.gpu.races(), Not(IsEmpty())) << "wait " << nth;
  }
}

// With the inputs' stream made slow, what the checker finds is a wrong answer as well.
TEST_P(LaneOrderTest, DroppedWaitForInputs_GivesAWrongAnswer) {
  Mutex mu;
  CondVar answered;
  bool is_answered = false;
  FakeDevice device({.devices = 2});
  Ledger ledger(device);
  const RoomUse room = RoomOf(device, GetParam(), ledger);
  auto group = Load(device, /*slots=*/1, GetParam());
  ASSERT_TRUE(group.ok());
  device.gpu.DropWait(1);
  // The first copy waits until the batch is answered, but for the wait that is missing.
  device.gpu.DelayNextCopy([&] {
    MutexLock lock(mu);
    while (!is_answered) answered.Wait(mu);
  });
  if (GetParam() == Way::kEngine || GetParam() == Way::kGraphs) {
    ledger.Submit(**group, (*group)->TryAcquire(), 8);
  } else {
    ledger.SubmitRouted(**group, (*group)->TryAcquire(), 8, room);
  }
  ledger.AwaitAll();
  {
    MutexLock lock(mu);
    is_answered = true;
    answered.NotifyAll();
  }
  EXPECT_EQ(ledger.wrong(), 1);
}

INSTANTIATE_TEST_SUITE_P(Ways, LaneOrderTest,
                         ::testing::Values(Way::kEngine, Way::kGraphs, Way::kRooms,
                                           Way::kOtherDevice),
                         [](const auto& info) { return NameOf(info.param); });

}  // namespace
}  // namespace penstock::gpu
