// Time limits: the caller's deadline and the queue's time-outs, REJECT and DELAY.

#include <gtest/gtest.h>

#include <vector>

#include "testing/puppet_batcher.h"

namespace penstock {
namespace {

constexpr int64_t kUs = 1000;

Batcher::Options ExpiryOptions(QueuePolicy policy) {
  Batcher::Options options;
  options.policy.max_batch_size = 4;
  options.levels = {policy};
  return options;
}

TEST(BatcherExpiryTest, DeadlineInThePast_IsRefused) {
  PuppetBatcher puppet;
  const RequestRef ref = puppet.Make({.deadline_ns = puppet.clock().NowNs()});
  const Status status = puppet.batcher().Enqueue(ref);
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(PuppetBatcher::Of(ref).times_done, 0);  // a refusal is the caller's to complete
  EXPECT_EQ(puppet.batcher().counters().deadlines, 1U);
  EXPECT_EQ(puppet.batcher().counters().expired_queued, 0U);
  EXPECT_EQ(puppet.batcher().counters().accepted, 0U);
}

TEST(BatcherExpiryTest, OldestAge_IsOfTheRequestThatWaitsLongest) {
  PuppetBatcher puppet;
  EXPECT_EQ(puppet.batcher().counters().oldest_age_ns, 0);
  puppet.Queue();
  puppet.clock().Advance(30);
  puppet.Queue();
  puppet.clock().Advance(12);
  EXPECT_EQ(puppet.batcher().counters().oldest_age_ns, 42);
  EXPECT_EQ(puppet.batcher().counters().background.oldest_age_ns, 0);
  Batch first = puppet.Next();
  EXPECT_EQ(puppet.batcher().counters().oldest_age_ns, 12);
  puppet.Finish(&first);
  Batch second = puppet.Next();
  EXPECT_EQ(puppet.batcher().counters().oldest_age_ns, 0);
  puppet.Finish(&second);
}

TEST(BatcherExpiryTest, OldestAge_LooksAtEveryLevel) {
  Batcher::Options options;
  options.levels = {QueuePolicy{}, QueuePolicy{}};
  PuppetBatcher puppet(options);
  puppet.Queue({.priority = 2});
  puppet.clock().Advance(5);
  puppet.Queue({.priority = 1});
  EXPECT_EQ(puppet.batcher().counters().oldest_age_ns, 5);
}

TEST(BatcherExpiryTest, Deadline_EndsAQueuedRequest) {
  PuppetBatcher puppet;
  const RequestRef ref = puppet.Queue({.deadline_ns = puppet.clock().NowNs() + 10});
  puppet.clock().Advance(9);
  EXPECT_EQ(puppet.batcher().ExpireDue(), FakeClock::kStartNs + 10);
  EXPECT_EQ(PuppetBatcher::Of(ref).times_done, 0);
  puppet.clock().Advance(1);
  EXPECT_EQ(puppet.batcher().ExpireDue(), kNever);
  EXPECT_EQ(PuppetBatcher::Of(ref).outcome.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(PuppetBatcher::Of(ref).times_done, 1);
  EXPECT_GE(PuppetBatcher::Of(ref).times_woken, 1);
  EXPECT_EQ(puppet.batcher().counters().expired_queued, 1U);
}

TEST(BatcherExpiryTest, Deadline_DoesNotEndARunningRequest) {
  PuppetBatcher puppet;
  const RequestRef ref = puppet.Queue({.deadline_ns = puppet.clock().NowNs() + 10});
  Batch batch = puppet.Next();
  puppet.clock().Advance(100);
  EXPECT_EQ(puppet.batcher().ExpireDue(), kNever);
  puppet.Finish(&batch);
  EXPECT_TRUE(PuppetBatcher::Of(ref).outcome.ok());
}

TEST(BatcherExpiryTest, ExpiredRequest_IsNotBatched) {
  PuppetBatcher puppet;
  puppet.Queue({.deadline_ns = puppet.clock().NowNs() + 10});
  puppet.Queue();
  puppet.clock().Advance(10);
  EXPECT_EQ(PuppetBatcher::Ids(puppet.Next()), std::vector<int>{1});
  EXPECT_EQ(puppet.log().ids(), std::vector<int>{0});
}

TEST(BatcherExpiryTest, RequestTimeout_IsUnavailable) {
  PuppetBatcher puppet;
  const RequestRef ref = puppet.Queue({.timeout_us = 5});
  puppet.clock().Advance(5 * kUs);
  puppet.batcher().ExpireDue();
  EXPECT_EQ(PuppetBatcher::Of(ref).outcome.code(), StatusCode::kUnavailable);
  EXPECT_EQ(PuppetBatcher::Of(ref).outcome.message(), "Request timeout expired");
  EXPECT_EQ(puppet.batcher().counters().queue_timeouts, 1U);
  EXPECT_EQ(puppet.batcher().counters().deadlines, 0U);
}

struct TimeoutCase {
  int64_t default_us;
  bool honours_request;
  int64_t request_us;
  int64_t expected_us;  // 0 = never
};

TEST(BatcherExpiryTest, RequestTimeout_OnlyShortensTheModels) {
  const std::vector<TimeoutCase> cases = {
      {0, true, 0, 0},  {0, true, 7, 7},  {9, true, 0, 9},  {9, true, 7, 7},
      {9, true, 20, 9}, {9, false, 7, 9}, {0, false, 7, 0}, {0, true, INT64_MAX, 0}};
  for (const TimeoutCase& c : cases) {
    PuppetBatcher puppet(ExpiryOptions(
        {.default_timeout_us = c.default_us, .honours_request_timeout = c.honours_request}));
    puppet.Queue({.timeout_us = c.request_us});
    const int64_t expected =
        c.expected_us == 0 ? kNever : FakeClock::kStartNs + c.expected_us * kUs;
    EXPECT_EQ(puppet.batcher().ExpireDue(), expected)
        << c.default_us << " " << c.honours_request << " " << c.request_us;
  }
}

TEST(BatcherExpiryTest, DeadlineBeforeTheTimeout_IsDeadlineExceeded) {
  PuppetBatcher puppet(ExpiryOptions({.default_timeout_us = 10}));
  const int64_t now_ns = puppet.clock().NowNs();
  const RequestRef early = puppet.Queue({.deadline_ns = now_ns + 9 * kUs});
  const RequestRef same = puppet.Queue({.deadline_ns = now_ns + 10 * kUs});
  const RequestRef late = puppet.Queue({.deadline_ns = now_ns + 11 * kUs});
  puppet.clock().Advance(10 * kUs);
  puppet.batcher().ExpireDue();
  EXPECT_EQ(PuppetBatcher::Of(early).outcome.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(PuppetBatcher::Of(same).outcome.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(PuppetBatcher::Of(late).outcome.code(), StatusCode::kUnavailable);
}

TEST(BatcherExpiryTest, Delay_GoesBehindTheOthersOfItsPriority) {
  Batcher::Options options = ExpiryOptions({.default_timeout_us = 5, .delays_on_timeout = true});
  options.levels.push_back({});
  PuppetBatcher puppet(options);
  puppet.Queue({.priority = 1});
  puppet.clock().Advance(5 * kUs);
  puppet.Queue({.priority = 2});
  puppet.Queue({.priority = 1});
  EXPECT_EQ(puppet.batcher().ExpireDue(), puppet.clock().NowNs() + 5 * kUs);
  EXPECT_EQ(PuppetBatcher::Ids(puppet.Next()), (std::vector<int>{2, 0, 1}));
  EXPECT_EQ(puppet.batcher().counters().queue_timeouts, 0U);
}

TEST(BatcherExpiryTest, Delayed_EndsByItsDeadlineOnly) {
  PuppetBatcher puppet(ExpiryOptions({.default_timeout_us = 5, .delays_on_timeout = true}));
  const int64_t deadline_ns = puppet.clock().NowNs() + 50 * kUs;
  const RequestRef ref = puppet.Queue({.deadline_ns = deadline_ns});
  puppet.clock().Advance(5 * kUs);
  EXPECT_EQ(puppet.batcher().ExpireDue(), deadline_ns);
  EXPECT_EQ(PuppetBatcher::Of(ref).times_done, 0);
  puppet.clock().AdvanceTo(deadline_ns);
  puppet.batcher().ExpireDue();
  EXPECT_EQ(PuppetBatcher::Of(ref).outcome.code(), StatusCode::kDeadlineExceeded);
}

class Told final : public ExpiryObserver {
 public:
  void OnEarlierExpiry(int64_t expiry_ns) override { times.push_back(expiry_ns); }
  std::vector<int64_t> times;
};

TEST(BatcherExpiryTest, Observer_IsToldOfEarlierExpiriesOnly) {
  Told told;
  Batcher::Options options;
  options.expiry_observer = &told;
  PuppetBatcher puppet(options);
  const int64_t now_ns = puppet.clock().NowNs();
  puppet.Queue();
  puppet.Queue({.deadline_ns = now_ns + 20});
  puppet.Queue({.deadline_ns = now_ns + 30});
  puppet.Queue({.deadline_ns = now_ns + 10});
  EXPECT_EQ(told.times, (std::vector<int64_t>{now_ns + 20, now_ns + 10}));
  puppet.clock().Advance(25);
  EXPECT_EQ(puppet.batcher().ExpireDue(), now_ns + 30);
  puppet.Queue({.deadline_ns = now_ns + 29});
  EXPECT_EQ(told.times.back(), now_ns + 29);
}

}  // namespace
}  // namespace penstock
