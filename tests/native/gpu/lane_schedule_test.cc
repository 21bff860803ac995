// A thousand schedules, each of its own seed: shape of the lanes, latency, submitters, and a fault
// somewhere or none. Whatever comes, every batch is answered once, and no answer is wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gpu_harness.h"
#include "testing/fake_clock.h"
#include "testing/gpu_schedule_checks.h"

namespace penstock::gpu {
namespace {

using ::testing::IsEmpty;

// Some of the batch's tensors in a room on one of two devices, or registered; null where none can be had.
RoomUse PickRoom(GpuSchedule& schedule, FakeDevice& device, const Ledger& ledger, uint32_t rows) {
  constexpr int kNumbers[] = {0, 0, 1, kHostMemory, kHostMemory};
  const int number = kNumbers[schedule.Pick(0, 4)];
  return {.room = ClientRoom::TryMake(device.gpu, ledger.RoomBytes(), number),
          .host_rows = static_cast<uint32_t>(schedule.Pick(0, static_cast<int>(rows) - 1)),
          .has_outputs = schedule.Pick(0, 2) > 0,
          .is_read_on_host = schedule.Pick(0, 1) == 0};
}

void SubmitSome(FakeDevice& device, LaneGroup& group, Ledger& ledger, uint64_t seed) {
  GpuSchedule schedule(seed);
  const int batches = schedule.Pick(2, 10);
  for (int i = 0; i < batches; ++i) {
    auto lease = group.Acquire();
    if (!lease.ok()) return;  // the device is lost
    const auto rows = static_cast<uint32_t>(schedule.Pick(1, 8));
    const bool has_room = schedule.Pick(0, 1) == 0;
    const RoomUse use = has_room ? PickRoom(schedule, device, ledger, rows) : RoomUse{};
    if (use.room == nullptr) {
      ledger.Submit(group, std::move(*lease), rows);
    } else {
      ledger.SubmitRouted(group, std::move(*lease), rows, use);
    }
  }
}

void CheckAnswers(FakeDevice& device, Ledger& ledger, GpuFault kind) {
  EXPECT_EQ(ledger.wrong(), 0);
  EXPECT_EQ(ledger.twice(), 0);
  EXPECT_THAT(device.gpu.races(), IsEmpty());
  EXPECT_EQ(device.gpu.pageable_copies(), 0);
  const int failed = ledger.submitted() - ledger.succeeded();
  EXPECT_EQ(failed, ledger.Count(StatusCode::kInternal) + ledger.Count(StatusCode::kUnavailable) +
                        ledger.Count(StatusCode::kResourceExhausted));
  EXPECT_TRUE(failed == 0 || kind != GpuFault::kNone) << failed;
  EXPECT_TRUE(failed <= 1 || device.health.is_faulted()) << failed;
}

void RunSchedule(uint64_t seed) {
  GpuSchedule schedule(seed);
  const GpuFault kind = PickFault(schedule);
  const bool takes_any_rows = schedule.Pick(0, 1) == 1;
  const bool pays = takes_any_rows && schedule.Pick(0, 1) == 1;  // for other rows than the last
  FakeClock clock;
  FakeDevice device({.seed = seed, .max_yields = schedule.Pick(0, 6), .devices = 2},
                    {.width = 4,
                     .takes_any_rows = takes_any_rows,
                     .row_changes_cost = pays,
                     .clock = &clock,
                     .row_ns = 1000,
                     .change_ns = 4000},
                    pays ? static_cast<Clock&>(clock) : Clock::System());
  const LaneGroupOptions options{.lanes = static_cast<size_t>(schedule.Pick(1, 2)),
                                 .slots_per_lane = static_cast<size_t>(schedule.Pick(1, 3)),
                                 .bucket_rows = {2, 8},
                                 .graph_budget_bytes = schedule.Pick(0, 3) > 0 ? 1U << 20 : 0U,
                                 .measure_runs = static_cast<size_t>(schedule.Pick(0, 1))};
  const auto inject = [&](int nth) {
    InjectFault(device.gpu, kind, nth, [&](int run) { device.engine.FailEnqueue(run); });
  };
  const bool at_load = schedule.Pick(0, 9) == 0;
  if (at_load) inject(schedule.Pick(1, 60));
  auto group = device.Load(options);
  ASSERT_TRUE(group.ok() || (at_load && kind != GpuFault::kNone)) << group.status().ToString();
  if (!group.ok()) return;
  if (!at_load) inject(schedule.Pick(1, 60));
  Ledger ledger(device);
  std::vector<std::thread> submitters;
  for (int i = schedule.Pick(1, 2); i > 0; --i) {
    submitters.emplace_back(
        [&, sub = schedule.random()] { SubmitSome(device, **group, ledger, sub); });
  }
  for (std::thread& submitter : submitters) submitter.join();
  if (schedule.Pick(0, 1) == 0) ledger.AwaitAll();
  group = Result<std::unique_ptr<LaneGroup>>(std::unique_ptr<LaneGroup>());  // with work in flight
  ledger.AwaitAll();
  CheckAnswers(device, ledger, kind);
  EXPECT_TRUE(device.HasAllBlocks());
}

TEST(LaneScheduleTest, RandomSchedules_LoseNothingAndAnswerNothingWrong) {
  RunGpuSchedules(RunSchedule);
}

}  // namespace
}  // namespace penstock::gpu
