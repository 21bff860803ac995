// A thousand schedules, each of its own seed: sessions, their lanes, instances on threads, and a
// fault somewhere or none. Whatever comes, every batch is answered, and no answer is wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "session_harness.h"
#include "testing/gpu_schedule_checks.h"

namespace penstock::ort {
namespace {

void RunSchedule(uint64_t seed) {
  GpuSchedule schedule(seed);
  const GpuFault kind = PickFault(schedule);
  const bool has_open_width = schedule.Pick(0, 2) == 0;
  const auto host_input = static_cast<HostInput>(schedule.Pick(0, 2));
  const bool pays = schedule.Pick(0, 1) == 0;  // for other rows than the last
  FakeClock clock;
  FakeModels fake({.width = has_open_width ? -1 : 4,
                   .host_input = host_input,
                   .clock = pays ? &clock : nullptr},
                  {.seed = seed, .max_yields = schedule.Pick(0, 6)});
  const auto inject = [&](int nth) {
    InjectFault(*fake.gpu, kind, nth, [&](int run) { fake.log.FailRun(run); });
  };
  const bool at_load = schedule.Pick(0, 4) == 0;
  if (at_load) inject(schedule.Pick(1, 90));
  std::map<std::string, std::string> parameters = {{"lanes", std::to_string(schedule.Pick(1, 3))}};
  if (has_open_width) parameters["shape:x"] = "1:4:8";
  if (pays) parameters["dynamic_batching"] = "1";
  auto model = fake.Load(parameters);
  ASSERT_TRUE(model.ok() || (at_load && kind != GpuFault::kNone)) << model.status().ToString();
  if (!model.ok()) return;
  if (!at_load) inject(schedule.Pick(1, 120));
  Tally tally;
  RunInstances(**model, schedule, tally, [&](BackendInstance& instance, uint64_t sub) {
    RunSome(instance, sub, has_open_width ? 8 : 0, tally);
  });
  ExpectRight(tally, kind, *fake.gpu);
}

TEST(SessionScheduleTest, RandomSchedules_LoseNothingAndAnswerNothingWrong) {
  RunGpuSchedules(RunSchedule);
}

}  // namespace
}  // namespace penstock::ort
