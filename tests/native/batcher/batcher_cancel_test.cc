// The caller leaves: while its request waits, while it runs, before and after.

#include <gtest/gtest.h>

#include "testing/puppet_batcher.h"

namespace penstock {
namespace {

Batcher::Options CancelOptions() {
  Batcher::Options options;
  options.policy.max_batch_size = 4;
  return options;
}

TEST(BatcherCancelTest, Queued_EndsAtOnceAndIsNeverRun) {
  PuppetBatcher puppet(CancelOptions());
  const RequestRef gone = puppet.Queue({.deadline_ns = puppet.clock().NowNs() + 10});
  puppet.Queue();
  puppet.batcher().Cancel(*gone);
  EXPECT_EQ(PuppetBatcher::Of(gone).outcome.code(), StatusCode::kCancelled);
  EXPECT_EQ(PuppetBatcher::Of(gone).times_done, 1);
  EXPECT_EQ(puppet.batcher().counters().cancelled_queued, 1U);
  EXPECT_EQ(PuppetBatcher::Ids(puppet.Next()), std::vector<int>{1});
  EXPECT_EQ(puppet.batcher().ExpireDue(), kNever);  // nor does it expire
}

TEST(BatcherCancelTest, Running_EndsWithItsBatchAsCancelled) {
  PuppetBatcher puppet(CancelOptions());
  const RequestRef gone = puppet.Queue();
  const RequestRef stays = puppet.Queue();
  Batch batch = puppet.Next();
  puppet.batcher().Cancel(*gone);
  EXPECT_TRUE(gone->is_cancelled());
  EXPECT_EQ(PuppetBatcher::Of(gone).times_done, 0);
  puppet.Finish(&batch);
  EXPECT_EQ(PuppetBatcher::Of(gone).outcome.code(), StatusCode::kCancelled);
  EXPECT_TRUE(PuppetBatcher::Of(stays).outcome.ok());
  EXPECT_EQ(puppet.batcher().counters().cancelled_running, 1U);
  EXPECT_EQ(puppet.batcher().counters().cancelled_queued, 0U);
}

TEST(BatcherCancelTest, BetweenTheEndAndItsDelivery_ChangesNothing) {
  PuppetBatcher puppet(CancelOptions());
  const RequestRef gone = puppet.Queue();
  const RequestRef late = puppet.Queue();
  Batch batch = puppet.Next();
  puppet.batcher().Cancel(*gone);
  std::vector<Status> outcomes(2);
  puppet.batcher().End(batch, outcomes);
  EXPECT_EQ(outcomes[0].code(), StatusCode::kCancelled);
  puppet.batcher().Cancel(*late);
  EXPECT_EQ(PuppetBatcher::Of(gone).times_done, 0);
  puppet.batcher().Deliver(&batch, outcomes);
  EXPECT_TRUE(PuppetBatcher::Of(late).outcome.ok());
  EXPECT_EQ(puppet.batcher().counters().cancelled_running, 1U);
}

TEST(BatcherCancelTest, TwiceAndAfterTheEnd_ChangesNothing) {
  PuppetBatcher puppet(CancelOptions());
  const RequestRef queued = puppet.Queue();
  puppet.batcher().Cancel(*queued);
  puppet.batcher().Cancel(*queued);
  const RequestRef run = puppet.Queue();
  Batch batch = puppet.Next();
  puppet.Finish(&batch);
  puppet.batcher().Cancel(*run);
  EXPECT_EQ(PuppetBatcher::Of(queued).times_done, 1);
  EXPECT_EQ(PuppetBatcher::Of(run).times_done, 1);
  EXPECT_TRUE(PuppetBatcher::Of(run).outcome.ok());
  EXPECT_FALSE(run->is_cancelled());
  EXPECT_EQ(puppet.batcher().counters().cancelled_queued, 1U);
  EXPECT_EQ(puppet.batcher().counters().cancelled_running, 0U);
}

TEST(BatcherCancelTest, BeforeEnqueue_IsRefusedAsCancelled) {
  PuppetBatcher puppet(CancelOptions());
  const RequestRef ref = puppet.Make();
  puppet.batcher().Cancel(*ref);
  EXPECT_EQ(puppet.batcher().Enqueue(ref).code(), StatusCode::kCancelled);
  EXPECT_EQ(PuppetBatcher::Of(ref).times_done, 0);
  EXPECT_EQ(puppet.batcher().counters().accepted, 0U);
}

TEST(BatcherCancelTest, CancelledCaller_FreesItsPlaceInTheQueue) {
  Batcher::Options options = CancelOptions();
  options.levels = {{.max_queue_size = 1}};
  PuppetBatcher puppet(options);
  const RequestRef gone = puppet.Queue();
  ASSERT_FALSE(puppet.batcher().Enqueue(puppet.Make()).ok());
  puppet.batcher().Cancel(*gone);
  EXPECT_TRUE(puppet.batcher().Enqueue(puppet.Make()).ok());
}

}  // namespace
}  // namespace penstock
