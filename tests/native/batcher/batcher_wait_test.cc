// NextBatch's waits, on a clock that only the test moves: who is woken, when, and that stop wakes
// everyone.

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "base/thread.h"
#include "testing/puppet_batcher.h"

namespace penstock {
namespace {

constexpr int64_t kWaitNs = 1000;

Batcher::Options Options(int64_t delay_ns) {
  Batcher::Options options;
  options.policy.max_batch_size = 4;
  options.policy.max_queue_delay_ns = delay_ns;
  return options;
}

// An instance that runs batches at once and notes their sizes.
class Worker {
 public:
  explicit Worker(PuppetBatcher& puppet) : puppet_(puppet), thread_("worker", [this] { Run(); }) {}

  // Waits until it has run `count` batches.
  std::vector<size_t> AwaitBatches(size_t count) {
    MutexLock lock(mu_);
    while (sizes_.size() < count) changed_.Wait(mu_);
    return sizes_;
  }
  void Join() { thread_.Join(); }

 private:
  void Run() {
    Batch batch;
    while (puppet_.batcher().NextBatch(&batch)) {
      const size_t size = batch.requests.size();
      puppet_.Finish(&batch);
      MutexLock lock(mu_);
      sizes_.push_back(size);
      changed_.NotifyAll();
    }
  }

  PuppetBatcher& puppet_;
  Mutex mu_;
  CondVar changed_;
  std::vector<size_t> sizes_ GUARDED_BY(mu_);
  Thread thread_;
};

TEST(BatcherWaitTest, Enqueue_WakesAnIdleInstance) {
  PuppetBatcher puppet(Options(0));
  Worker worker(puppet);
  puppet.clock().AwaitWaiters(1);
  puppet.Queue();
  EXPECT_EQ(worker.AwaitBatches(1), std::vector<size_t>{1});
  puppet.batcher().Close();
}

TEST(BatcherWaitTest, Later_WakesOnFlush) {
  PuppetBatcher puppet(Options(0));
  Worker worker(puppet);
  puppet.clock().AwaitWaiters(1);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(puppet.batcher().Enqueue(puppet.Make(), Wake::kLater).ok());
  }
  puppet.batcher().Flush();
  EXPECT_EQ(worker.AwaitBatches(1), std::vector<size_t>{3});
  puppet.batcher().Close();
}

TEST(BatcherWaitTest, Flush_OfMoreThanABatchWakesAsManyAsAreNeeded) {
  PuppetBatcher puppet(Options(0));
  Worker first(puppet);
  Worker second(puppet);
  puppet.clock().AwaitWaiters(2);
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(puppet.batcher().Enqueue(puppet.Make(), Wake::kLater).ok());
  }
  puppet.batcher().Flush();
  puppet.batcher().Close();
  first.Join();
  second.Join();
  EXPECT_EQ(puppet.log().ids().size(), 8U);
}

TEST(BatcherWaitTest, Delay_IsWaitedForOnTheClock) {
  PuppetBatcher puppet(Options(kWaitNs));
  Worker worker(puppet);
  puppet.clock().AwaitWaiters(1);
  puppet.QueueMany(2);
  puppet.clock().AwaitWaitersUntil(FakeClock::kStartNs + kWaitNs);
  puppet.clock().Advance(kWaitNs);
  EXPECT_EQ(worker.AwaitBatches(1), std::vector<size_t>{2});
  puppet.batcher().Close();
}

TEST(BatcherWaitTest, FullBatch_EndsTheWaitForTheDelay) {
  PuppetBatcher puppet(Options(kWaitNs));
  Worker worker(puppet);
  puppet.clock().AwaitWaiters(1);
  puppet.Queue();
  puppet.clock().AwaitWaitersUntil(FakeClock::kStartNs + kWaitNs);
  puppet.QueueMany(3);
  EXPECT_EQ(worker.AwaitBatches(1), std::vector<size_t>{4});
  puppet.batcher().Close();
}

TEST(BatcherWaitTest, Close_WakesEveryInstance) {
  PuppetBatcher puppet(Options(kWaitNs));
  Worker first(puppet);
  Worker second(puppet);
  puppet.clock().AwaitWaiters(2);
  puppet.batcher().Close();
  first.Join();
  second.Join();
}

TEST(BatcherWaitTest, Close_HandsOutWhatIsQueuedFirst) {
  PuppetBatcher puppet(Options(kWaitNs));
  Worker worker(puppet);
  puppet.clock().AwaitWaiters(1);
  puppet.Queue();
  puppet.batcher().Close();
  worker.Join();
  EXPECT_EQ(worker.AwaitBatches(1), std::vector<size_t>{1});
  EXPECT_EQ(puppet.log().ids(), std::vector<int>{0});
}

// Two rows are preferred; 1 + 2 make none, but 2 do once the first has expired.
TEST(BatcherWaitTest, Expiry_WakesAnInstanceWhenItCompletesABatch) {
  Batcher::Options options = Options(kWaitNs);
  options.policy.preferred_batch_sizes = {2};
  PuppetBatcher puppet(options);
  Worker worker(puppet);
  puppet.clock().AwaitWaiters(1);
  puppet.Queue({.deadline_ns = FakeClock::kStartNs + 10});
  puppet.Queue({.rows = 2});
  puppet.clock().AwaitWaitersUntil(FakeClock::kStartNs + kWaitNs);
  puppet.clock().Advance(10);
  puppet.batcher().ExpireDue();
  EXPECT_EQ(worker.AwaitBatches(1), std::vector<size_t>{1});
  puppet.batcher().Close();
}

}  // namespace
}  // namespace penstock
