#include <gtest/gtest.h>

#include "testing/puppet_batcher.h"

namespace penstock {
namespace {

Batcher::Options Options(std::vector<QueuePolicy> levels) {
  Batcher::Options options;
  options.policy.max_batch_size = 4;
  options.levels = std::move(levels);
  return options;
}

TEST(BatcherQueueLimitTest, FullQueue_RejectsWithUnavailable) {
  PuppetBatcher puppet(Options({{.max_queue_size = 2}}));
  puppet.QueueMany(2);
  const RequestRef ref = puppet.Make();
  const Status status = puppet.batcher().Enqueue(ref);
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(status.message(), "Exceeds maximum queue size");
  EXPECT_EQ(PuppetBatcher::Of(ref).times_done, 0);
  const BatcherCounters counters = puppet.batcher().counters();
  EXPECT_EQ(counters.queue_full, 1U);
  EXPECT_EQ(counters.accepted, 2U);
  EXPECT_EQ(counters.pending, 2U);
}

TEST(BatcherQueueLimitTest, RunningRequests_DoNotCount) {
  PuppetBatcher puppet(Options({{.max_queue_size = 2}}));
  puppet.QueueMany(2);
  const Batch running = puppet.Next();
  EXPECT_TRUE(puppet.batcher().Enqueue(puppet.Make()).ok());
}

TEST(BatcherQueueLimitTest, Limit_IsOfRequestsNotRows) {
  PuppetBatcher puppet(Options({{.max_queue_size = 2}}));
  puppet.QueueMany(2, {.rows = 4});
  EXPECT_FALSE(puppet.batcher().Enqueue(puppet.Make()).ok());
}

TEST(BatcherQueueLimitTest, EachPriority_HasItsOwn) {
  PuppetBatcher puppet(Options({{.max_queue_size = 1}, {.max_queue_size = 2}}));
  puppet.Queue({.priority = 1});
  EXPECT_FALSE(puppet.batcher().Enqueue(puppet.Make({.priority = 1})).ok());
  puppet.QueueMany(2, {.priority = 2});
  EXPECT_FALSE(puppet.batcher().Enqueue(puppet.Make({.priority = 2})).ok());
}

TEST(BatcherQueueLimitTest, DelayedRequests_StillCount) {
  PuppetBatcher puppet(
      Options({{.max_queue_size = 1, .default_timeout_us = 1, .delays_on_timeout = true}}));
  puppet.Queue();
  puppet.clock().Advance(1000);
  puppet.batcher().ExpireDue();
  EXPECT_FALSE(puppet.batcher().Enqueue(puppet.Make()).ok());
}

}  // namespace
}  // namespace penstock
