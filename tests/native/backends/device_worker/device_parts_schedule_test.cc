// Random schedules: batches whose tensors lie in clients' memory on a GPU, memory that comes and goes,
// and what ends the worker, in any order. Each batch ends once, rightly or with a reason, and no memory
// stays open.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "device_parts.h"
#include "testing/quiet_log.h"

namespace penstock {
namespace {

constexpr int kPartsSchedules = 120;
constexpr int kPartsBatches = 8;
constexpr int kPartsInstances = 3;
constexpr float kTroubles[] = {-1, -2, -4, -5, -6};  // exit, crash, lose the device, throw, fail

struct PartsOutcomes {
  std::atomic<int> right{0}, by_parts{0}, failed{0}, unavailable{0}, wrong{0};
};

void Count(const Status& status, bool is_right, bool has_trouble, PartsOutcomes* outcomes) {
  if (status.ok()) {
    ++(is_right && !has_trouble ? outcomes->right : outcomes->wrong);
  } else if (status.code() == StatusCode::kUnavailable) {
    ++outcomes->unavailable;
  } else {
    ++(has_trouble ? outcomes->failed : outcomes->wrong);
  }
}

// Of one instance: a memory of its own, which is another now and then, and one that all of them see.
void RunBatches(BackendInstance& instance, const ClientMemory& shared, uint32_t seed,
                PartsOutcomes* outcomes) {
  std::mt19937 random(seed);
  auto client = std::make_unique<ClientMemory>(kMemoryBytes);
  for (int i = 0; i < kPartsBatches; ++i) {
    if (random() % 3 == 0) client = std::make_unique<ClientMemory>(kMemoryBytes);
    if (random() % 4 == 0) instance.Reaches(*shared.memory);
    RowBatch batch(static_cast<int>(random() % 1000), 1 + random() % 8, kPlanWidth);
    const bool has_trouble = random() % 24 == 0;
    std::vector<BatchOutput> outputs;
    if (random() % 4 > 0 && instance.Reaches(*client->memory)) {
      if (has_trouble) batch.b[0] = kTroubles[random() % std::size(kTroubles)];
      const int64_t host_rows = static_cast<int64_t>(random()) % (batch.rows + 1);
      const Status status =
          RunParts(instance, batch, client.get(), host_rows, random() % 2 == 0, &outputs);
      Count(status, status.ok() && batch.IsRight(outputs), has_trouble, outcomes);
      ++outcomes->by_parts;
    } else {
      if (has_trouble) batch.x[0] = kTroubles[random() % std::size(kTroubles)];
      const Status status = batch.Run(instance, &outputs);
      Count(status, status.ok() && batch.IsRight(outputs), has_trouble, outcomes);
    }
  }
}

TEST(DevicePartsScheduleTest, EachBatchEndsOnceAndNoMemoryStaysOpen) {
  const QuietLog quiet;
  const ScratchDirectory scratch;
  DeviceWorkerOptions options = WorkerOfTests();
  options.restarts = {.max_restarts = 1 << 20, .first_delay_ns = 0, .max_delay_ns = 0};
  const auto worker = WorkerOfGpu(0, std::move(options));
  std::vector<std::unique_ptr<DeviceModel>> models;
  std::vector<std::unique_ptr<BackendInstance>> instances;
  for (int i = 0; i < kPartsInstances; ++i) {
    if (i < 2) models.push_back(MustLoadIn({worker}, PlanLoad(scratch, StrCat("m", i))));
    instances.push_back(MustMake(*models.back()));
  }
  PartsOutcomes outcomes;
  for (int seed = 0; seed < kPartsSchedules; ++seed) {
    auto shared = std::make_unique<ClientMemory>(kMemoryBytes);
    std::vector<std::thread> threads;
    for (uint32_t i = 0; i < kPartsInstances; ++i) {
      threads.emplace_back(
          [&, i] { RunBatches(*instances[i], *shared, seed * kPartsInstances + i, &outcomes); });
    }
    for (std::thread& thread : threads) thread.join();
    shared.reset();
    for (const auto& instance : instances) AwaitAvailable(*instance, true);
    const std::string maps = MapsOf(PlanPid(*instances[0]));
    ASSERT_FALSE(maps.empty());
    ASSERT_EQ(maps.find("penstock-test-"), std::string::npos) << "seed " << seed;
  }
  EXPECT_EQ(outcomes.wrong, 0);
  EXPECT_EQ(outcomes.right + outcomes.failed + outcomes.unavailable,
            kPartsSchedules * kPartsInstances * kPartsBatches);
  EXPECT_GT(outcomes.right, kPartsSchedules);
  EXPECT_GT(outcomes.by_parts, kPartsSchedules);
  EXPECT_GT(outcomes.failed, 0);
  EXPECT_GT(outcomes.unavailable, 0);
  EXPECT_GT(worker->restarts(), 10);
}

}  // namespace
}  // namespace penstock
