// Which batch is formed, when, and why: by puppet, without threads.

#include <gtest/gtest.h>

#include "testing/puppet_batcher.h"

namespace penstock {
namespace {

constexpr int64_t kDelayNs = 100;

Batcher::Options FormOptions(int64_t delay_ns = 0) {
  Batcher::Options options;
  options.policy.max_batch_size = 4;
  options.policy.max_queue_delay_ns = delay_ns;
  return options;
}

uint64_t Closed(PuppetBatcher& puppet, CloseReason reason) {
  return puppet.batcher().counters().closed[static_cast<size_t>(reason)];
}

TEST(BatcherFormTest, NothingQueued_NoBatchAndNothingToWaitFor) {
  PuppetBatcher puppet(FormOptions());
  EXPECT_TRUE(puppet.Next().requests.empty());
  EXPECT_EQ(puppet.wait_until_ns(), kNever);
}

TEST(BatcherFormTest, LoneRequestWithoutDelay_RunsAtOnce) {
  PuppetBatcher puppet(FormOptions());
  puppet.Queue();
  const Batch batch = puppet.Next();
  EXPECT_EQ(batch.rows, 1U);
  EXPECT_EQ(batch.formed_ns, FakeClock::kStartNs);
  EXPECT_EQ(batch.requests[0]->enqueue_ns(), FakeClock::kStartNs);
  EXPECT_EQ(Closed(puppet, CloseReason::kIdleInstance), 1U);
}

TEST(BatcherFormTest, LoneRequestWithDelay_WaitsForIt) {
  PuppetBatcher puppet(FormOptions(kDelayNs));
  puppet.Queue();
  EXPECT_TRUE(puppet.Next().requests.empty());
  EXPECT_EQ(puppet.wait_until_ns(), FakeClock::kStartNs + kDelayNs);
  puppet.clock().Advance(kDelayNs - 1);
  EXPECT_TRUE(puppet.Next().requests.empty());
  puppet.clock().Advance(1);
  EXPECT_EQ(puppet.Next().requests.size(), 1U);
  EXPECT_EQ(Closed(puppet, CloseReason::kDelay), 1U);
}

TEST(BatcherFormTest, LaterRequests_DoNotExtendTheDelay) {
  PuppetBatcher puppet(FormOptions(kDelayNs));
  puppet.Queue();
  puppet.clock().Advance(60);
  puppet.Queue();
  EXPECT_TRUE(puppet.Next().requests.empty());
  EXPECT_EQ(puppet.wait_until_ns(), FakeClock::kStartNs + kDelayNs);
}

TEST(BatcherFormTest, Full_EndsTheDelay) {
  PuppetBatcher puppet(FormOptions(kDelayNs));
  puppet.QueueMany(5);
  EXPECT_EQ(puppet.Next().requests.size(), 4U);
  EXPECT_EQ(Closed(puppet, CloseReason::kFull), 1U);
  EXPECT_TRUE(puppet.Next().requests.empty());  // the fifth waits for its own delay
}

TEST(BatcherFormTest, Preferred_EndsTheDelay) {
  Batcher::Options options = FormOptions(kDelayNs);
  options.policy.preferred_batch_sizes = {2};
  PuppetBatcher puppet(options);
  puppet.QueueMany(3);
  EXPECT_EQ(puppet.Next().requests.size(), 2U);
  EXPECT_EQ(Closed(puppet, CloseReason::kPreferred), 1U);
}

TEST(BatcherFormTest, BytesInSharedMemory_CloseTheBatchThatHasNoRoomForMore) {
  Batcher::Options options = FormOptions(kDelayNs);
  options.policy.max_shared_bytes = 100;
  PuppetBatcher puppet(options);
  puppet.Queue({.shared_bytes = 40});
  puppet.Queue({.shared_bytes = 60});
  EXPECT_TRUE(puppet.Next().requests.empty());  // they fit, and so may others
  puppet.Queue({.shared_bytes = 1});
  EXPECT_EQ(PuppetBatcher::Ids(puppet.Next()), (std::vector<int>{0, 1}));
  EXPECT_EQ(Closed(puppet, CloseReason::kFull), 1U);
  EXPECT_TRUE(puppet.Next().requests.empty());
}

TEST(BatcherFormTest, LoneRequestOfManyBytes_IsABatchOfItsOwn) {
  Batcher::Options options = FormOptions(0);
  options.policy.max_shared_bytes = 100;
  PuppetBatcher puppet(options);
  for (const uint64_t bytes : {uint64_t{1} << 40, uint64_t{1}, uint64_t{0}, uint64_t{1} << 40}) {
    puppet.Queue({.shared_bytes = bytes});
  }
  EXPECT_EQ(PuppetBatcher::Ids(puppet.Next()), std::vector<int>{0});
  EXPECT_EQ(PuppetBatcher::Ids(puppet.Next()), (std::vector<int>{1, 2}));
  EXPECT_EQ(PuppetBatcher::Ids(puppet.Next()), std::vector<int>{3});
}

TEST(BatcherFormTest, OtherShape_EndsTheDelayOfBoth) {
  PuppetBatcher puppet(FormOptions(kDelayNs));
  puppet.Queue({.key = {1}});
  puppet.Queue({.key = {2}});
  EXPECT_EQ(PuppetBatcher::Ids(puppet.Next()), std::vector<int>{0});
  EXPECT_EQ(Closed(puppet, CloseReason::kShapeChange), 1U);
  EXPECT_TRUE(puppet.Next().requests.empty());  // alone again, it waits
}

TEST(BatcherFormTest, Close_EndsTheDelayAndRefusesMore) {
  PuppetBatcher puppet(FormOptions(kDelayNs));
  puppet.Queue();
  puppet.batcher().Close();
  const RequestRef late = puppet.Make();
  const Status status = puppet.batcher().Enqueue(late);
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(PuppetBatcher::Of(late).times_done, 0);
  EXPECT_EQ(puppet.Next().requests.size(), 1U);
  EXPECT_EQ(Closed(puppet, CloseReason::kDrain), 1U);
}

TEST(BatcherFormTest, RefusedByAClosedBatcher_IsTakenByTheNextOne) {
  PuppetBatcher old;
  PuppetBatcher fresh;
  const RequestRef ref = old.Make();
  old.batcher().Close();
  ASSERT_FALSE(old.batcher().Enqueue(ref).ok());
  EXPECT_TRUE(fresh.batcher().Enqueue(ref).ok());
  Batch batch = fresh.Next();
  ASSERT_EQ(batch.requests.size(), 1U);
  fresh.Finish(&batch);
  EXPECT_EQ(old.log().ids(), std::vector<int>{0});
}

TEST(BatcherFormTest, Priority_MoreUrgentFirstThenArrival) {
  Batcher::Options options = FormOptions();
  options.levels.resize(3);
  options.default_priority = 2;
  PuppetBatcher puppet(options);
  for (const uint32_t priority : {3U, 0U, 1U, 2U, 99U, 1U}) puppet.Queue({.priority = priority});
  EXPECT_EQ(PuppetBatcher::Ids(puppet.Next()), (std::vector<int>{2, 5, 1, 3}));
  EXPECT_EQ(PuppetBatcher::Ids(puppet.Next()), (std::vector<int>{4, 0}));
}

TEST(BatcherFormTest, Priority_UrgentShapeGoesFirst) {
  Batcher::Options options = FormOptions();
  options.levels.resize(2);
  options.default_priority = 2;
  PuppetBatcher puppet(options);
  puppet.Queue({.key = {1}});
  puppet.Queue({.key = {2}, .priority = 1});
  puppet.Queue({.key = {2}});
  EXPECT_EQ(PuppetBatcher::Ids(puppet.Next()), (std::vector<int>{1, 2}));
}

TEST(BatcherFormTest, MultiRow_IsNeverSplitAndNeverOverMax) {
  PuppetBatcher puppet(FormOptions());
  const std::vector<uint32_t> rows = {3, 2, 2, 4, 1, 1, 1, 3};
  for (const uint32_t r : rows) puppet.Queue({.rows = r});
  std::vector<uint32_t> batches;
  std::vector<int> ids;
  for (Batch batch = puppet.Next(); !batch.requests.empty(); batch = puppet.Next()) {
    uint32_t sum = 0;
    for (const RequestRef& ref : batch.requests) sum += ref->rows;
    EXPECT_EQ(sum, batch.rows);
    batches.push_back(batch.rows);
    for (const int id : PuppetBatcher::Ids(batch)) ids.push_back(id);
  }
  EXPECT_EQ(batches, (std::vector<uint32_t>{3, 4, 4, 3, 3}));
  EXPECT_EQ(ids, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(BatcherFormTest, WithoutDynamicBatching_EachRequestIsABatch) {
  Batcher::Options options = FormOptions(kDelayNs);
  options.policy.combines_requests = false;
  PuppetBatcher puppet(options);
  puppet.Queue({.rows = 3});
  puppet.Queue();
  EXPECT_EQ(puppet.Next().rows, 3U);  // at once: no delay applies
  EXPECT_EQ(puppet.Next().rows, 1U);
  EXPECT_TRUE(puppet.Next().requests.empty());
}

TEST(BatcherFormTest, Finish_DeliversEachItsOutcomeOnceAndWakesAfterwards) {
  PuppetBatcher puppet(FormOptions());
  const RequestRef good = puppet.Queue();
  const RequestRef bad = puppet.Queue();
  Batch batch = puppet.Next();
  EXPECT_EQ(puppet.batcher().counters().running, 2U);
  std::vector<Status> outcomes{Status(), Internal("bad luck")};
  puppet.batcher().Finish(&batch, outcomes);
  EXPECT_TRUE(batch.requests.empty());
  EXPECT_TRUE(PuppetBatcher::Of(good).outcome.ok());
  EXPECT_EQ(PuppetBatcher::Of(bad).outcome.message(), "bad luck");
  EXPECT_EQ(PuppetBatcher::Of(good).times_done, 1);
  EXPECT_EQ(PuppetBatcher::Of(bad).times_done, 1);
  EXPECT_GE(PuppetBatcher::Of(good).times_woken, 1);
  EXPECT_EQ(puppet.batcher().counters().running, 0U);
}

TEST(BatcherFormTest, FailQueued_EndsTheQueueButNotTheRunning) {
  PuppetBatcher puppet(FormOptions());
  puppet.QueueMany(5);
  Batch running = puppet.Next();
  puppet.batcher().FailQueued(Unavailable("gone"));
  EXPECT_EQ(puppet.log().ids(), std::vector<int>{4});
  EXPECT_EQ(puppet.log().ends()[0].status.message(), "gone");
  EXPECT_EQ(puppet.batcher().counters().drained, 1U);
  puppet.Finish(&running);
  EXPECT_EQ(puppet.log().ids().size(), 5U);
}

TEST(BatcherFormTest, Destructor_FailsWhatIsQueued) {
  EndLog log;
  {
    FakeClock clock;
    Batcher::Options options = FormOptions();
    options.clock = &clock;
    Batcher batcher(options);
    ASSERT_TRUE(batcher.Enqueue(RequestRef(new PuppetRequest(7, &log))).ok());
  }
  ASSERT_EQ(log.ids(), std::vector<int>{7});
  EXPECT_EQ(log.ends()[0].status.code(), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace penstock
