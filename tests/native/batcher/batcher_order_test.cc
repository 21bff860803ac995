// preserve_ordering: outcomes are delivered in order of arrival, whatever finishes first.

#include <gtest/gtest.h>

#include "testing/puppet_batcher.h"

namespace penstock {
namespace {

Batcher::Options OrderOptions() {
  Batcher::Options options;
  options.policy.max_batch_size = 2;
  options.preserves_ordering = true;
  options.levels.resize(2);
  options.default_priority = 2;
  return options;
}

TEST(BatcherOrderTest, LaterBatchThatFinishesFirst_Waits) {
  PuppetBatcher puppet(OrderOptions());
  puppet.QueueMany(6);
  Batch first = puppet.Next();
  Batch second = puppet.Next();
  Batch third = puppet.Next();
  puppet.Finish(&third);
  puppet.Finish(&second);
  EXPECT_TRUE(puppet.log().ids().empty());
  puppet.Finish(&first);
  EXPECT_EQ(puppet.log().ids(), (std::vector<int>{0, 1, 2, 3, 4, 5}));
}

TEST(BatcherOrderTest, EachKeepsItsOwnOutcome) {
  PuppetBatcher puppet(OrderOptions());
  puppet.QueueMany(4);
  Batch first = puppet.Next();
  Batch second = puppet.Next();
  puppet.Finish(&second, Internal("second"));
  puppet.Finish(&first);
  const auto ends = puppet.log().ends();
  ASSERT_EQ(ends.size(), 4U);
  EXPECT_TRUE(ends[1].status.ok());
  EXPECT_EQ(ends[2].status.message(), "second");
}

TEST(BatcherOrderTest, UrgentOneThatRunsFirst_IsDeliveredInItsTurn) {
  PuppetBatcher puppet(OrderOptions());
  puppet.Queue({.key = {1}});
  puppet.Queue({.key = {2}, .priority = 1});
  Batch urgent = puppet.Next();
  ASSERT_EQ(PuppetBatcher::Ids(urgent), std::vector<int>{1});
  puppet.Finish(&urgent);
  EXPECT_TRUE(puppet.log().ids().empty());
  Batch other = puppet.Next();
  puppet.Finish(&other);
  EXPECT_EQ(puppet.log().ids(), (std::vector<int>{0, 1}));
}

TEST(BatcherOrderTest, CancelledInTheQueue_EndsAtOnceAndHoldsNobody) {
  PuppetBatcher puppet(OrderOptions());
  puppet.QueueMany(2);
  const RequestRef gone = puppet.Queue();
  puppet.Queue();
  Batch first = puppet.Next();
  puppet.batcher().Cancel(*gone);
  EXPECT_EQ(puppet.log().ids(), std::vector<int>{2});
  Batch last = puppet.Next();
  ASSERT_EQ(PuppetBatcher::Ids(last), std::vector<int>{3});
  puppet.Finish(&last);
  puppet.Finish(&first);
  EXPECT_EQ(puppet.log().ids(), (std::vector<int>{2, 0, 1, 3}));
}

TEST(BatcherOrderTest, ExpiredHead_ReleasesThoseBehindIt) {
  PuppetBatcher puppet(OrderOptions());
  puppet.Queue({.key = {1}, .deadline_ns = puppet.clock().NowNs() + 10});
  puppet.Queue({.key = {2}, .priority = 1});
  Batch urgent = puppet.Next();
  puppet.Finish(&urgent);
  EXPECT_TRUE(puppet.log().ids().empty());
  puppet.clock().Advance(10);
  puppet.batcher().ExpireDue();
  EXPECT_EQ(puppet.log().ids(), (std::vector<int>{0, 1}));
}

TEST(BatcherOrderTest, CancelledWhileRunning_KeepsItsTurn) {
  PuppetBatcher puppet(OrderOptions());
  const RequestRef gone = puppet.Queue();
  puppet.QueueMany(2);
  Batch first = puppet.Next();
  Batch second = puppet.Next();
  puppet.batcher().Cancel(*gone);
  puppet.Finish(&second);
  EXPECT_TRUE(puppet.log().ids().empty());
  puppet.Finish(&first);
  EXPECT_EQ(puppet.log().ids(), (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(PuppetBatcher::Of(gone).outcome.code(), StatusCode::kCancelled);
}

TEST(BatcherOrderTest, FailedQueue_ReleasesWhatHasRun) {
  PuppetBatcher puppet(OrderOptions());
  puppet.Queue({.key = {1}});
  puppet.Queue({.key = {2}, .priority = 1});
  Batch urgent = puppet.Next();
  puppet.Finish(&urgent);
  puppet.batcher().FailQueued(Unavailable("gone"));
  EXPECT_EQ(puppet.log().ids(), (std::vector<int>{0, 1}));
}

TEST(BatcherOrderTest, DeliveredLate_IsStillWoken) {
  PuppetBatcher puppet(OrderOptions());
  puppet.QueueMany(2);
  const RequestRef late = puppet.Queue();
  Batch first = puppet.Next();
  Batch second = puppet.Next();
  puppet.Finish(&second);
  const int woken_early = PuppetBatcher::Of(late).times_woken;
  puppet.Finish(&first);
  EXPECT_EQ(PuppetBatcher::Of(late).times_done, 1);
  EXPECT_GT(PuppetBatcher::Of(late).times_woken, woken_early);
}

}  // namespace
}  // namespace penstock
