// Background requests: they fill what others leave, and step aside.

#include <gtest/gtest.h>

#include "testing/puppet_batcher.h"

namespace penstock {
namespace {

PuppetSpec Low() { return {.is_background = true}; }
PuppetSpec Job() { return {.is_background = true, .is_job = true}; }

// Batches of up to 8 rows: 2 rows of background requests may join one of others.
Batcher::Options BackgroundOptions(uint32_t max_background_rows = 0, int64_t delay_ns = 0) {
  Batcher::Options options;
  options.policy.max_batch_size = 8;
  options.policy.max_queue_delay_ns = delay_ns;
  options.policy.max_background_rows = max_background_rows;
  return options;
}

using Ids = std::vector<int>;

Ids NextIds(PuppetBatcher& puppet) { return PuppetBatcher::Ids(puppet.Next()); }

// As who answers it later than its batch does.
void FinishOne(PuppetBatcher& puppet, Request& request) {
  Status outcome;
  puppet.batcher().EndOne(request, &outcome);
  puppet.batcher().DeliverOne(request, outcome);
}

TEST(BatcherBackgroundTest, IdleInstance_RunsItInBatchesOfItsOwn) {
  PuppetBatcher puppet(BackgroundOptions(/*max_background_rows=*/4));
  puppet.QueueMany(6, Low());
  const Batch first = puppet.Next();
  EXPECT_EQ(PuppetBatcher::Ids(first), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(first.reason, CloseReason::kBackground);
  EXPECT_EQ(first.rows, 4U);
  EXPECT_TRUE(first.has_background());
  EXPECT_EQ(NextIds(puppet), (Ids{4, 5}));
}

TEST(BatcherBackgroundTest, OthersWait_TheyGoFirstAndAFewRowsJoinBehindThem) {
  PuppetBatcher puppet(BackgroundOptions());
  puppet.QueueMany(3, Low());
  puppet.QueueMany(2);
  const Batch batch = puppet.Next();
  EXPECT_EQ(PuppetBatcher::Ids(batch), (Ids{3, 4, 0, 1}));
  EXPECT_EQ(batch.rows, 4U);
  EXPECT_EQ(batch.reason, CloseReason::kIdleInstance);
  EXPECT_TRUE(batch.has_background());
  EXPECT_EQ(NextIds(puppet), (Ids{2}));
}

TEST(BatcherBackgroundTest, BatchOfOthersIsNearlyFull_WhatIsOpenIsFilled) {
  PuppetBatcher puppet(BackgroundOptions());
  puppet.QueueMany(3, Low());
  puppet.QueueMany(7);
  const Batch batch = puppet.Next();
  EXPECT_EQ(batch.rows, 8U);
  EXPECT_EQ(batch.requests.size(), 8U);
}

TEST(BatcherBackgroundTest, OthersComeDuringABackgroundBatch_TheyAreNext) {
  PuppetBatcher puppet(BackgroundOptions());
  puppet.QueueMany(100, Low());
  EXPECT_EQ(puppet.Next().rows, 8U);
  puppet.QueueMany(9);  // ids from 100 on
  EXPECT_EQ(NextIds(puppet), (Ids{100, 101, 102, 103, 104, 105, 106, 107}));
  EXPECT_EQ(NextIds(puppet), (Ids{108, 8, 9}));
}

TEST(BatcherBackgroundTest, OthersNeverStop_ItWaitsAndIsCounted) {
  PuppetBatcher puppet(BackgroundOptions());
  puppet.Queue({.rows = 3, .is_background = true});  // joins nobody
  for (int i = 0; i < 50; ++i) {
    puppet.QueueMany(2);
    Batch batch = puppet.Next();
    EXPECT_FALSE(batch.has_background());
    puppet.Queue();
    puppet.Finish(&batch);
    EXPECT_EQ(puppet.batcher().counters().background.pending, 1U);
    puppet.Next();
  }
  EXPECT_EQ(puppet.Next().reason, CloseReason::kBackground);
}

TEST(BatcherBackgroundTest, InstanceThatLeavesIt_RunsOthersAlone) {
  PuppetBatcher puppet(BackgroundOptions());
  puppet.QueueMany(2, Low());
  Batch batch;
  int64_t wait_until_ns = 0;
  EXPECT_FALSE(puppet.batcher().TryNextBatch(&batch, &wait_until_ns, Background::kLeaves));
  EXPECT_EQ(wait_until_ns, kNever);
  puppet.Queue();
  ASSERT_TRUE(puppet.batcher().TryNextBatch(&batch, &wait_until_ns, Background::kLeaves));
  EXPECT_EQ(PuppetBatcher::Ids(batch), (Ids{2}));
  EXPECT_EQ(NextIds(puppet), (Ids{0, 1}));
}

TEST(BatcherBackgroundTest, OthersStayBehind_NobodyJoinsBeforeTheLastOfThem) {
  PuppetBatcher puppet(BackgroundOptions());
  puppet.QueueMany(2, Low());
  puppet.QueueMany(2, {.rows = 5});
  puppet.Queue({.key = {7}});
  EXPECT_EQ(NextIds(puppet), (Ids{2}));
  EXPECT_EQ(NextIds(puppet), (Ids{3}));
  EXPECT_EQ(NextIds(puppet), (Ids{4}));
  EXPECT_EQ(NextIds(puppet), (Ids{0, 1}));
}

TEST(BatcherBackgroundTest, Jobs_JoinNobodyAndAreNotOvertaken) {
  PuppetBatcher puppet(BackgroundOptions());
  puppet.Queue(Low());
  puppet.Queue(Job());
  puppet.Queue(Low());
  puppet.Queue();
  EXPECT_EQ(NextIds(puppet), (Ids{3, 0}));
  puppet.Queue();
  EXPECT_EQ(NextIds(puppet), (Ids{4}));
  EXPECT_EQ(NextIds(puppet), (Ids{1, 2}));
}

TEST(BatcherBackgroundTest, ManyRun_NoneIsHandedOutUntilSomeHaveEnded) {
  Batcher::Options options = BackgroundOptions(/*max_background_rows=*/2);
  options.max_background_running = 3;
  PuppetBatcher puppet(options);
  puppet.QueueMany(6, Low());
  const Batch first = puppet.Next();
  EXPECT_EQ(PuppetBatcher::Ids(first), (Ids{0, 1}));
  EXPECT_EQ(NextIds(puppet), (Ids{2, 3}));
  EXPECT_EQ(NextIds(puppet), Ids{});
  puppet.Queue();
  EXPECT_EQ(NextIds(puppet), (Ids{6}));
  FinishOne(puppet, *first.requests[0]);
  EXPECT_EQ(NextIds(puppet), Ids{});
  FinishOne(puppet, *first.requests[1]);
  EXPECT_EQ(NextIds(puppet), (Ids{4, 5}));
}

TEST(BatcherBackgroundTest, OtherShapes_JoinNobodyAndStopNobody) {
  PuppetBatcher puppet(BackgroundOptions());
  puppet.Queue({.key = {7}, .is_background = true});
  puppet.Queue({.key = {8}});
  EXPECT_EQ(NextIds(puppet), (Ids{1}));
  EXPECT_EQ(NextIds(puppet), (Ids{0}));
}

TEST(BatcherBackgroundTest, OthersWaitForTheirDelay_ItDoesNotRunMeanwhile) {
  PuppetBatcher puppet(BackgroundOptions(0, /*delay_ns=*/100));
  puppet.Queue(Low());
  puppet.Queue();
  EXPECT_TRUE(puppet.Next().requests.empty());
  EXPECT_EQ(puppet.wait_until_ns(), FakeClock::kStartNs + 100);
  puppet.clock().Advance(100);
  EXPECT_EQ(NextIds(puppet), (Ids{1, 0}));
}

TEST(BatcherBackgroundTest, OnlyWholeRequestsJoin) {
  PuppetBatcher puppet(BackgroundOptions());
  puppet.Queue({.rows = 3, .is_background = true});
  puppet.QueueMany(2);
  EXPECT_EQ(puppet.Next().rows, 2U);
  EXPECT_EQ(NextIds(puppet), (Ids{0}));
}

TEST(BatcherBackgroundTest, WithoutDynamicBatching_EachRunsAlone) {
  Batcher::Options options = BackgroundOptions();
  options.policy.combines_requests = false;
  PuppetBatcher puppet(options);
  puppet.QueueMany(2, Low());
  puppet.Queue();
  EXPECT_EQ(NextIds(puppet), (Ids{2}));
  EXPECT_EQ(NextIds(puppet), (Ids{0}));
  EXPECT_EQ(NextIds(puppet), (Ids{1}));
}

TEST(BatcherBackgroundTest, PriorityDoesNotRaiseIt) {
  Batcher::Options options = BackgroundOptions();
  options.levels = {QueuePolicy{}, QueuePolicy{}};
  PuppetBatcher puppet(options);
  puppet.Queue({.key = {1}, .priority = 1, .is_background = true});
  puppet.Queue({.key = {2}, .priority = 2});
  EXPECT_EQ(NextIds(puppet), (Ids{1}));
}

TEST(BatcherBackgroundTest, CancelDeadlineTimeoutAndDrain_CompleteItWhileItIsQueued) {
  PuppetBatcher puppet(BackgroundOptions());
  const RequestRef cancelled = puppet.Queue(Low());
  puppet.Queue({.deadline_ns = FakeClock::kStartNs + 50'000, .is_background = true});
  puppet.Queue({.timeout_us = 60, .is_background = true});
  puppet.Queue(Low());
  puppet.batcher().Cancel(*cancelled);
  puppet.clock().Advance(50'000);
  EXPECT_EQ(puppet.batcher().ExpireDue(), FakeClock::kStartNs + 60'000);
  puppet.clock().Advance(10'000);
  EXPECT_EQ(puppet.batcher().ExpireDue(), kNever);
  puppet.batcher().FailQueued(Unavailable("gone"));
  const auto ends = puppet.log().ends();
  ASSERT_EQ(ends.size(), 4U);
  EXPECT_EQ(ends[0].status.code(), StatusCode::kCancelled);
  EXPECT_EQ(ends[1].status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ends[2].status.message(), "Request timeout expired");
  EXPECT_EQ(ends[3].status.message(), "gone");
}

TEST(BatcherBackgroundTest, CountersOfOthers_LeaveItOut) {
  Batcher::Options options = BackgroundOptions();
  options.background.max_queue_size = 3;
  PuppetBatcher puppet(options);
  const RequestRef cancelled = puppet.Queue(Low());
  puppet.Queue({.deadline_ns = FakeClock::kStartNs + 50, .is_background = true});
  puppet.Queue(Low());
  EXPECT_EQ(puppet.batcher().Enqueue(puppet.Make(Low())).message(), "Exceeds maximum queue size");
  puppet.batcher().Cancel(*cancelled);
  puppet.clock().Advance(50);
  puppet.batcher().ExpireDue();
  Batch batch = puppet.Next();
  const BatcherCounters during = puppet.batcher().counters();
  EXPECT_EQ(during.pending + during.running + during.accepted, 0U);
  EXPECT_EQ(during.background.running, 1U);
  puppet.Finish(&batch);
  puppet.Queue(Low());
  puppet.batcher().FailQueued(Unavailable("gone"));
  const BatcherCounters after = puppet.batcher().counters();
  EXPECT_EQ(after.queue_full + after.deadlines + after.expired_queued + after.cancelled_queued, 0U);
  EXPECT_EQ(after.drained, 0U);
  EXPECT_EQ(after.background.accepted, 4U);
  EXPECT_EQ(after.background.queue_full, 1U);
  EXPECT_EQ(after.background.expired_queued, 1U);
  EXPECT_EQ(after.background.cancelled_queued, 1U);
  EXPECT_EQ(after.background.drained, 1U);
  EXPECT_EQ(after.background.pending + after.background.running, 0U);
}

TEST(BatcherBackgroundTest, FullQueueOfIt_RefusesNobodyElse) {
  Batcher::Options options = BackgroundOptions();
  options.background.max_queue_size = 1;
  options.levels[0].max_queue_size = 1;
  PuppetBatcher puppet(options);
  puppet.Queue(Low());
  EXPECT_EQ(puppet.batcher().Enqueue(puppet.Make(Low())).code(), StatusCode::kUnavailable);
  puppet.Queue();
  EXPECT_EQ(puppet.batcher().Enqueue(puppet.Make()).code(), StatusCode::kUnavailable);
}

TEST(BatcherBackgroundTest, FullQueueOfIt_RefusesNoJob) {
  Batcher::Options options = BackgroundOptions();
  options.background.max_queue_size = 1;
  PuppetBatcher puppet(options);
  puppet.Queue(Low());
  EXPECT_TRUE(puppet.batcher().Enqueue(puppet.Make(Job())).ok());
  EXPECT_EQ(puppet.batcher().Enqueue(puppet.Make(Low())).code(), StatusCode::kUnavailable);
}

TEST(BatcherBackgroundTest, DefaultTimeoutOfOthers_IsNotItsOwn) {
  Batcher::Options options = BackgroundOptions();
  options.levels[0].default_timeout_us = 1;
  PuppetBatcher puppet(options);
  puppet.Queue(Low());
  puppet.clock().Advance(1'000'000);
  EXPECT_EQ(puppet.batcher().ExpireDue(), kNever);
  EXPECT_EQ(NextIds(puppet), (Ids{0}));
}

TEST(BatcherBackgroundTest, PreservedOrder_IsThatOfTheOthers) {
  Batcher::Options options = BackgroundOptions(/*max_background_rows=*/4);
  options.preserves_ordering = true;
  PuppetBatcher puppet(options);
  puppet.QueueMany(5, Low());
  Batch first = puppet.Next();
  puppet.Queue();
  Batch second = puppet.Next();
  puppet.Finish(&second);
  EXPECT_EQ(puppet.log().ids(), (Ids{5, 4}));
  puppet.Finish(&first);
  EXPECT_EQ(puppet.log().ids(), (Ids{5, 4, 0, 1, 2, 3}));
}

TEST(BatcherBackgroundTest, ClosedBatcher_EndsItAndHandsOutWhatOthersHaveQueued) {
  PuppetBatcher puppet(BackgroundOptions());
  puppet.QueueMany(2, Low());
  puppet.Queue();
  puppet.batcher().Close(Unavailable("unloaded"));
  const auto ends = puppet.log().ends();
  ASSERT_EQ(ends.size(), 2U);
  for (const EndLog::End& end : ends) EXPECT_EQ(end.status.message(), "unloaded");
  EXPECT_EQ(puppet.batcher().counters().background.drained, 2U);
  EXPECT_EQ(puppet.batcher().Enqueue(puppet.Make(Low())).code(), StatusCode::kFailedPrecondition);
  Batch batch;
  ASSERT_TRUE(puppet.batcher().NextBatch(&batch));
  EXPECT_EQ(PuppetBatcher::Ids(batch), (Ids{2}));
  puppet.Finish(&batch);
  EXPECT_FALSE(puppet.batcher().NextBatch(&batch));
}

}  // namespace
}  // namespace penstock
