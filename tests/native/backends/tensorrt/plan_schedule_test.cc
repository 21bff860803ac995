// A thousand schedules, each of its own seed: a plan, its lanes, instances on threads, and a fault
// somewhere or none. Whatever comes, every batch is answered, and no answer is wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "plan_harness.h"
#include "testing/gpu_schedule_checks.h"

namespace penstock::tensorrt {
namespace {

FakePlanOptions PlanOf(GpuSchedule& schedule, bool has_open_width) {
  FakePlanOptions plan;
  plan.width = has_open_width ? -1 : 4;
  plan.profiles = {{1, 2, 8, 1, 8}};
  if (schedule.Pick(0, 1) == 0) plan.profiles.push_back({1, 1, 2, 1, 8});
  if (!has_open_width && schedule.Pick(0, 3) == 0) plan.profiles = {{3, 4, 8}};
  return plan;
}

void RunSchedule(uint64_t seed) {
  GpuSchedule schedule(seed);
  const GpuFault kind = PickFault(schedule);
  const bool has_open_width = schedule.Pick(0, 2) == 0;
  FakeBackend fake(PlanOf(schedule, has_open_width),
                   {.seed = seed, .max_yields = schedule.Pick(0, 6)});
  const auto inject = [&](int nth) {
    InjectFault(*fake.gpu, kind, nth, [&](int run) { fake.runtime->FailEnqueue(run); });
  };
  const bool at_load = schedule.Pick(0, 4) == 0;
  if (at_load) inject(schedule.Pick(1, 120));
  auto model = fake.Load({{"lanes", std::to_string(schedule.Pick(1, 3))},
                          {"cuda_graphs", std::to_string(schedule.Pick(0, 1))},
                          {"graph_batch_sizes", "4,8"}});
  ASSERT_TRUE(model.ok() || (at_load && kind != GpuFault::kNone)) << model.status().ToString();
  if (!model.ok()) return;
  if (!at_load) inject(schedule.Pick(1, 120));
  Tally tally;
  RunInstances(**model, schedule, has_open_width ? 8 : 0, tally);
  ExpectRight(tally, kind, *fake.gpu);
}

TEST(PlanScheduleTest, RandomSchedules_LoseNothingAndAnswerNothingWrong) {
  RunGpuSchedules(RunSchedule);
}

}  // namespace
}  // namespace penstock::tensorrt
