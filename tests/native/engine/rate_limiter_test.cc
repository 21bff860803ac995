#include "engine/rate_limiter.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"

namespace penstock {
namespace {

constexpr int64_t kStart = 5 * kNsPerS;

TEST(RateLimiterTest, NoRate_LimitsNothingAndKeepsNothing) {
  RateLimiter limiter(10);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(limiter.Take("a", {}, kStart), 0);
  EXPECT_EQ(limiter.size(), 0U);
}

TEST(RateLimiterTest, Burst_IsLetInAtOnceAndThenTheRate) {
  RateLimiter limiter(10);
  const RateLimit limit = {.per_second = 10, .burst = 3};
  for (int i = 0; i < 3; ++i) EXPECT_EQ(limiter.Take("a", limit, kStart), 0);
  EXPECT_EQ(limiter.Take("a", limit, kStart), kNsPerS / 10);
  // A refusal takes nothing: the wait that was told is enough.
  EXPECT_EQ(limiter.Take("a", limit, kStart + kNsPerS / 20), kNsPerS / 20);
  EXPECT_EQ(limiter.Take("a", limit, kStart + kNsPerS / 10), 0);
  EXPECT_GT(limiter.Take("a", limit, kStart + kNsPerS / 10), 0);
}

TEST(RateLimiterTest, QuietTime_FillsTheBucketNoFurtherThanItsBurst) {
  RateLimiter limiter(10);
  const RateLimit limit = {.per_second = 10, .burst = 2};
  ASSERT_EQ(limiter.Take("a", limit, kStart), 0);
  const int64_t later = kStart + 100 * kNsPerS;
  EXPECT_EQ(limiter.Take("a", limit, later), 0);
  EXPECT_EQ(limiter.Take("a", limit, later), 0);
  EXPECT_GT(limiter.Take("a", limit, later), 0);
}

TEST(RateLimiterTest, Callers_HaveABucketEach) {
  RateLimiter limiter(10);
  const RateLimit limit = {.per_second = 1, .burst = 1};
  EXPECT_EQ(limiter.Take("a", limit, kStart), 0);
  EXPECT_EQ(limiter.Take("b", limit, kStart), 0);
  EXPECT_EQ(limiter.Take("a", limit, kStart), kNsPerS);
}

TEST(RateLimiterTest, FullBuckets_GoAsOthersCome) {
  RateLimiter limiter(1000);
  const RateLimit limit = {.per_second = 1, .burst = 1};
  for (int i = 0; i < 100; ++i) ASSERT_EQ(limiter.Take(std::to_string(i), limit, kStart), 0);
  EXPECT_EQ(limiter.size(), 100U);
  for (int i = 0; i < 100; ++i) limiter.Take("last", limit, kStart + 2 * kNsPerS);
  EXPECT_EQ(limiter.size(), 1U);
}

TEST(RateLimiterTest, Bound_HoldsAndTheQuietestGoes) {
  RateLimiter limiter(3);
  const RateLimit limit = {.per_second = 1, .burst = 1};
  for (const char* name : {"a", "b", "c"}) ASSERT_EQ(limiter.Take(name, limit, kStart), 0);
  ASSERT_GT(limiter.Take("a", limit, kStart), 0);
  ASSERT_EQ(limiter.Take("d", limit, kStart), 0);
  EXPECT_EQ(limiter.size(), 3U);
  EXPECT_GT(limiter.Take("a", limit, kStart), 0) << "it called a moment ago";
  EXPECT_EQ(limiter.Take("b", limit, kStart), 0) << "the quietest was forgotten";
}

TEST(RateLimiterTest, ExtremeRates_DoNotOverflow) {
  RateLimiter limiter(10);
  EXPECT_EQ(limiter.Take("slow", {.per_second = 1e-300, .burst = 1e300}, kStart), 0);
  EXPECT_GT(limiter.Take("slow", {.per_second = 1e-300, .burst = 1e300}, kStart), 0);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(limiter.Take("fast", {.per_second = 1e300, .burst = 1e300}, kStart), 0);
  }
}

TEST(RateLimiterTest, ManyThreads_ShareOneBucketExactly) {
  RateLimiter limiter(10);
  const RateLimit limit = {.per_second = 1, .burst = 100};
  std::atomic<int> taken{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 100; ++i) {
        if (limiter.Take("shared", limit, kStart) == 0) taken.fetch_add(1);
        limiter.Take(std::to_string(t * 100 + i), limit, kStart);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_LE(limiter.size(), 10U);
  EXPECT_GE(taken.load(), 100);
}

TEST(RateLimiterTest, WaitTakesNothing_AndChargeTakesInAnyCase) {
  RateLimiter limiter(10);
  const RateLimit limit{.per_second = 1, .burst = 2};
  EXPECT_EQ(limiter.Wait("c", limit, kStart), 0);
  EXPECT_EQ(limiter.size(), 0U);
  for (int i = 0; i < 4; ++i) limiter.Charge("c", limit, kStart);
  EXPECT_EQ(limiter.Wait("c", limit, kStart), 3 * kNsPerS);
  EXPECT_EQ(limiter.Wait("c", limit, kStart), 3 * kNsPerS);
  EXPECT_EQ(limiter.Take("c", limit, kStart), 3 * kNsPerS);
  EXPECT_EQ(limiter.Wait("c", limit, kStart + 3 * kNsPerS), 0);
  EXPECT_EQ(limiter.Wait("d", limit, kStart), 0);
  EXPECT_EQ(limiter.Wait("c", {}, kStart), 0);  // no limit
}

}  // namespace
}  // namespace penstock
