#include "batcher/queue.h"

#include <gtest/gtest.h>

#include "testing/puppet_batcher.h"

namespace penstock {
namespace {

// The queue's view of a batcher without time limits is reached through the batcher: a request's
// level and expiry are set by no one else.
Batcher::Options QueueOptions(uint32_t max_batch_size, std::vector<uint32_t> preferred = {}) {
  Batcher::Options options;
  options.policy.max_batch_size = max_batch_size;
  options.policy.preferred_batch_sizes = std::move(preferred);
  return options;
}

TEST(RequestQueueTest, Take_GivesWholeRequestsInArrivalOrder) {
  PuppetBatcher puppet(QueueOptions(8));
  for (const uint32_t rows : {3U, 2U, 3U, 1U}) puppet.Queue({.rows = rows});
  const Batch batch = puppet.Next();
  EXPECT_EQ(PuppetBatcher::Ids(batch), (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(batch.rows, 8U);
}

TEST(RequestQueueTest, RequestThatDoesNotFit_IsNotOvertaken) {
  PuppetBatcher puppet(QueueOptions(8));
  for (const uint32_t rows : {5U, 4U, 1U}) puppet.Queue({.rows = rows});
  const Batch batch = puppet.Next();
  EXPECT_EQ(PuppetBatcher::Ids(batch), (std::vector<int>{0}));
  EXPECT_EQ(batch.reason, CloseReason::kFull);
}

TEST(RequestQueueTest, PreferredWalk_TakesTheLargestThatWholeRequestsMake) {
  PuppetBatcher puppet(QueueOptions(16, {4, 6, 12}));
  for (const uint32_t rows : {3U, 1U, 3U, 1U}) puppet.Queue({.rows = rows});  // 3 4 7 8
  Batch batch = puppet.Next();
  EXPECT_EQ(batch.rows, 4U);
  EXPECT_EQ(batch.reason, CloseReason::kPreferred);
  puppet.Queue({.rows = 8});  // 3 4 12
  batch = puppet.Next();
  EXPECT_EQ(batch.rows, 12U);
  EXPECT_EQ(PuppetBatcher::Ids(batch), (std::vector<int>{2, 3, 4}));
}

TEST(RequestQueueTest, Key_OnlyItsLikeIsTaken) {
  PuppetBatcher puppet(QueueOptions(8));
  puppet.Queue({.key = {1}});
  puppet.Queue({.key = {2}});
  puppet.Queue({.key = {1}});
  puppet.Queue({.key = {1, 0}});
  EXPECT_EQ(PuppetBatcher::Ids(puppet.Next()), (std::vector<int>{0, 2}));
  EXPECT_EQ(PuppetBatcher::Ids(puppet.Next()), (std::vector<int>{1}));
  EXPECT_EQ(PuppetBatcher::Ids(puppet.Next()), (std::vector<int>{3}));
}

TEST(RequestQueueTest, ManyKeys_AreForgottenAndComeBack) {
  PuppetBatcher puppet(QueueOptions(4));
  for (int round = 0; round < 2; ++round) {
    for (int64_t key = 0; key < 300; ++key) puppet.QueueMany(2, {.key = {key, -key}});
    for (int64_t key = 0; key < 300; ++key) {
      const Batch batch = puppet.Next();
      ASSERT_EQ(batch.requests.size(), 2U);
      ASSERT_EQ(batch.requests[0]->key[0], key);
    }
    EXPECT_TRUE(puppet.Next().requests.empty());
  }
}

TEST(RequestQueueTest, Destructor_GivesTheReferencesBack) {
  EndLog log;
  const RequestRef kept(new PuppetRequest(0, &log));
  {
    RequestQueue queue(2);
    queue.Push(kept);
    queue.Push(RequestRef(new PuppetRequest(1, &log)));  // freed by the queue, or a leak
    EXPECT_EQ(queue.size(), 2U);
  }
  EXPECT_TRUE(log.ids().empty());
}

}  // namespace
}  // namespace penstock
