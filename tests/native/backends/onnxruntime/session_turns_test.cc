// Which runs of a session wait for their end: what the engine keeps to it does not grow for ever.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "backends/onnxruntime/run_turns.h"
#include "session_harness.h"

namespace penstock::ort {
namespace {

using ::testing::IsEmpty;

TEST(RunTurnsTest, EachThreadsEveryNthRunWaits) {
  RunTurns turns;
  std::vector<std::thread> threads;
  std::vector<int> odd(3);
  for (size_t t = 0; t < odd.size(); ++t) {
    threads.emplace_back([&turns, &odd = odd[t]] {
      for (uint32_t run = 1; run <= 3 * RunTurns::kPeriod; ++run) {
        const RunEnd expected = run % RunTurns::kPeriod == 0 ? RunEnd::kOver : RunEnd::kEnqueued;
        odd += turns.Next() == expected ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(odd, std::vector<int>(odd.size()));
}

TEST(RunTurnsTest, SessionsAreCountedEachByItself) {
  RunTurns one;
  RunTurns other;
  for (uint32_t run = 1; run < RunTurns::kPeriod; ++run) static_cast<void>(one.Next());
  EXPECT_EQ(other.Next(), RunEnd::kEnqueued);
  EXPECT_EQ(one.Next(), RunEnd::kOver);
  EXPECT_EQ(one.Next(), RunEnd::kEnqueued);
}

// The engine keeps by thread, so it is each thread's runs that are bounded, whoever's turn it is.
TEST(SessionTurnsTest, InstancesOnThreads_NeverKeepMoreThanOnePeriodsRuns) {
  FakeModels fake;
  auto model = fake.Load({{"lanes", "2"}});
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  std::vector<std::thread> threads;
  std::vector<int> right(3);
  constexpr int kBatches = 5 * static_cast<int>(RunTurns::kPeriod);
  for (size_t t = 0; t < right.size(); ++t) {
    threads.emplace_back([&model, &right = right[t], t] {
      auto instance = *(*model)->CreateInstance({});
      for (int i = 0; i < kBatches; ++i) {
        const RowBatch batch(i, 1 + i % static_cast<int>(t + 2), 4);
        std::vector<BatchOutput> outputs;
        const Status status = batch.Run(*instance, &outputs);
        right += status.ok() && batch.IsRight(outputs) ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, std::vector<int>(right.size(), kBatches));
  EXPECT_LE(fake.log.most_kept.load(), static_cast<int>(RunTurns::kPeriod));
  // Of each thread's runs in each lane all but less than a period's are behind one that waited.
  EXPECT_GE(fake.log.waits.load(), 3 * (kBatches / static_cast<int>(RunTurns::kPeriod) - 1));
  EXPECT_THAT(fake.gpu->races(), IsEmpty());
}

}  // namespace
}  // namespace penstock::ort
