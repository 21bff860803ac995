// A thousand schedules, each of its own seed: a plan, its lanes, instances on threads, and a fault
// somewhere or none. Whatever comes, every batch is answered, and no answer is wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "plan_harness.h"

namespace penstock::tensorrt {
namespace {

using ::testing::IsEmpty;

#if defined(__SANITIZE_THREAD__)
constexpr int kSchedules = 300;  // each is several times as slow
#else
constexpr int kSchedules = 1000;
#endif

enum class FaultKind { kNone, kPlainCall, kStickyCall, kWork, kEngine, kNoMemory, kKinds };

struct Schedule {
  explicit Schedule(uint64_t seed) : random(seed) {}

  int Pick(int least, int greatest) {
    return std::uniform_int_distribution<int>(least, greatest)(random);
  }

  std::mt19937_64 random;
};

void Inject(FakeBackend& fake, FaultKind kind, int nth) {
  switch (kind) {
    case FaultKind::kPlainCall:
      return fake.gpu->FailCall("", nth, gpu::Error::kInvalidValue);
    case FaultKind::kStickyCall:
      return fake.gpu->FailCall("", nth, gpu::Error::kLaunchFailure);
    case FaultKind::kNoMemory:
      return fake.gpu->FailCall("", nth, gpu::Error::kMemoryAllocation);
    case FaultKind::kWork:
      return fake.gpu->FaultWork(nth, gpu::Error::kIllegalAddress);
    case FaultKind::kEngine:
      return fake.runtime->FailEnqueue(nth);
    default:
      return;
  }
}

struct Tally {
  std::atomic<int> right{0}, wrong{0}, failed{0}, odd{0};
};

// What an instance's thread does: one batch after another.
void RunSome(BackendInstance& instance, uint64_t seed, bool has_open_width, Tally& tally) {
  Schedule schedule(seed);
  for (int i = schedule.Pick(2, 10); i > 0; --i) {
    const int width = has_open_width ? schedule.Pick(1, 8) : 4;
    const Batch batch(schedule.Pick(0, 999), schedule.Pick(1, 8), width);
    std::vector<BatchOutput> outputs;
    const Status status = batch.Run(instance, &outputs);
    const bool is_expected = status.code() == StatusCode::kInternal ||
                             status.code() == StatusCode::kUnavailable ||
                             status.code() == StatusCode::kResourceExhausted;
    if (status.ok()) {
      ++(batch.IsRight(outputs) ? tally.right : tally.wrong);
    } else {
      ++(is_expected ? tally.failed : tally.odd);
    }
  }
}

FakePlanOptions PlanOf(Schedule& schedule, bool has_open_width) {
  FakePlanOptions plan;
  plan.width = has_open_width ? -1 : 4;
  plan.profiles = {{1, 2, 8, 1, 8}};
  if (schedule.Pick(0, 1) == 0) plan.profiles.push_back({1, 1, 2, 1, 8});
  if (!has_open_width && schedule.Pick(0, 3) == 0) plan.profiles = {{3, 4, 8}};
  return plan;
}

void RunSchedule(uint64_t seed) {
  Schedule schedule(seed);
  const auto kind =
      static_cast<FaultKind>(schedule.Pick(0, static_cast<int>(FaultKind::kKinds) - 1));
  const bool has_open_width = schedule.Pick(0, 2) == 0;
  FakeBackend fake(PlanOf(schedule, has_open_width),
                   {.seed = seed, .max_yields = schedule.Pick(0, 6)});
  const bool at_load = schedule.Pick(0, 4) == 0;
  if (at_load) Inject(fake, kind, schedule.Pick(1, 120));
  auto model = fake.Load({{"lanes", std::to_string(schedule.Pick(1, 3))},
                          {"cuda_graphs", std::to_string(schedule.Pick(0, 1))},
                          {"graph_batch_sizes", "4,8"}});
  ASSERT_TRUE(model.ok() || (at_load && kind != FaultKind::kNone)) << model.status().ToString();
  if (!model.ok()) return;
  if (!at_load) Inject(fake, kind, schedule.Pick(1, 120));
  Tally tally;
  {
    std::vector<std::unique_ptr<BackendInstance>> instances;
    std::vector<std::thread> threads;
    for (int i = schedule.Pick(1, 3); i > 0; --i) {
      auto instance = (*model)->CreateInstance({});
      ASSERT_TRUE(instance.ok());
      instances.push_back(*std::move(instance));
      threads.emplace_back([&, on = instances.back().get(), sub = schedule.random()] {
        RunSome(*on, sub, has_open_width, tally);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_EQ(tally.wrong, 0);
  EXPECT_EQ(tally.odd, 0);
  EXPECT_TRUE(tally.failed == 0 || kind != FaultKind::kNone) << tally.failed;
  EXPECT_THAT(fake.gpu->races(), IsEmpty());
  EXPECT_EQ(fake.gpu->pageable_copies(), 0);
}

TEST(PlanScheduleTest, RandomSchedules_LoseNothingAndAnswerNothingWrong) {
  const QuietLog quiet;
  for (int seed = 1; seed <= kSchedules && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RunSchedule(static_cast<uint64_t>(seed));
  }
}

}  // namespace
}  // namespace penstock::tensorrt
