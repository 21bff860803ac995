// Random schedules: batches of several instances and what ends their worker, in any order. Each batch
// ends once, rightly or with a reason, and the worker is there again in the end.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "device_harness.h"
#include "testing/quiet_log.h"

namespace penstock {
namespace {

constexpr int kSchedules = 1000;
constexpr int kBatches = 6;
constexpr int kInstances = 3;
constexpr float kExits = -1, kCrashes = -2, kLosesDevice = -4, kThrows = -5, kFails = -6;

struct BatchOutcomes {
  std::atomic<int> right{0}, failed{0}, unavailable{0}, wrong{0};
};

void Count(float value, const Result<std::vector<float>>& got, BatchOutcomes* outcomes) {
  if (got.ok()) {
    ++(value > 0 && *got == std::vector<float>{value} ? outcomes->right : outcomes->wrong);
  } else if (got.status().code() == StatusCode::kUnavailable) {
    ++outcomes->unavailable;
  } else {
    ++(value == kThrows || value == kFails ? outcomes->failed : outcomes->wrong);
  }
}

// Of one instance: mostly answers, now and then trouble.
void RunBatches(BackendInstance& instance, uint32_t seed, BatchOutcomes* outcomes) {
  std::mt19937 random(seed);
  for (int i = 0; i < kBatches; ++i) {
    constexpr float kTroubles[] = {kExits, kCrashes, kLosesDevice, kThrows, kFails};
    const auto value = random() % 24 == 0 ? kTroubles[random() % std::size(kTroubles)]
                                          : static_cast<float>(1 + random() % 1000);
    Count(value, RunRow(instance, {value}), outcomes);
  }
}

TEST(DeviceScheduleTest, EachBatchEndsOnce_RightlyOrWithAReason) {
  const QuietLog quiet;
  DeviceWorkerOptions options = WorkerOfTests();
  options.restarts = {.max_restarts = 1 << 20, .first_delay_ns = 0, .max_delay_ns = 0};
  const auto worker = std::make_shared<DeviceWorker>(std::move(options));
  std::vector<std::unique_ptr<DeviceModel>> models;
  std::vector<std::unique_ptr<BackendInstance>> instances;
  for (int i = 0; i < kInstances; ++i) {
    if (i < 2) models.push_back(MustLoadIn({worker}, FixtureLoad(StrCat("m", i))));
    instances.push_back(MustMake(*models.back()));
  }
  BatchOutcomes outcomes;
  for (int seed = 0; seed < kSchedules; ++seed) {
    std::vector<std::thread> threads;
    for (uint32_t i = 0; i < kInstances; ++i) {
      threads.emplace_back([&, i] { RunBatches(*instances[i], seed * kInstances + i, &outcomes); });
    }
    for (std::thread& thread : threads) thread.join();
    for (const auto& instance : instances) AwaitAvailable(*instance, true);
    for (const auto& instance : instances) {
      ASSERT_EQ(*RunRow(*instance, {7}), std::vector<float>{7}) << "seed " << seed;
    }
  }
  EXPECT_EQ(outcomes.wrong, 0);
  EXPECT_EQ(outcomes.right + outcomes.failed + outcomes.unavailable,
            kSchedules * kInstances * kBatches);
  EXPECT_GT(outcomes.right, 0);
  EXPECT_GT(outcomes.failed, 0);
  EXPECT_GT(outcomes.unavailable, 0);
  EXPECT_GT(worker->restarts(), 10);
}

}  // namespace
}  // namespace penstock
