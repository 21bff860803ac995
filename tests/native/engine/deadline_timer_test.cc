// The timer on a clock that only the test moves.

#include "engine/deadline_timer.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "testing/puppet_batcher.h"

namespace penstock {
namespace {

class DeadlineTimerTest : public testing::Test {
 protected:
  std::shared_ptr<Batcher> MakeBatcher() {
    Batcher::Options options;
    options.clock = &clock_;
    options.expiry_observer = &timer_;
    auto batcher = std::make_shared<Batcher>(options);
    timer_.Watch(batcher);
    return batcher;
  }
  RequestRef Queue(Batcher& batcher, int64_t deadline_ns) {
    RequestRef ref(new PuppetRequest(next_id_++, &log_));
    ref->deadline_ns = deadline_ns;
    EXPECT_TRUE(batcher.Enqueue(ref).ok());
    return ref;
  }
  // Ends without a test failure only when the request does.
  static void AwaitDone(const RequestRef& ref) {
    while (PuppetBatcher::Of(ref).times_done.load() == 0) std::this_thread::yield();
  }
  int64_t At(int64_t ns) const { return FakeClock::kStartNs + ns; }

  FakeClock clock_;
  EndLog log_;
  int next_id_ = 0;
  DeadlineTimer timer_{clock_};
};

TEST_F(DeadlineTimerTest, EndsWhatIsDueAndNothingElse) {
  const auto batcher = MakeBatcher();
  const RequestRef first = Queue(*batcher, At(100));
  const RequestRef second = Queue(*batcher, At(200));
  clock_.AwaitWaitersUntil(At(100));
  clock_.Advance(100);
  AwaitDone(first);
  clock_.AwaitWaitersUntil(At(200));
  EXPECT_EQ(log_.ids(), std::vector<int>{0});
  clock_.Advance(100);
  AwaitDone(second);
  clock_.AwaitWaitersUntil(kNever);  // nothing left: it sleeps
}

TEST_F(DeadlineTimerTest, EarlierDeadlineThatComesLater_ShortensTheWait) {
  const auto batcher = MakeBatcher();
  Queue(*batcher, At(1000));
  clock_.AwaitWaitersUntil(At(1000));
  const RequestRef urgent = Queue(*batcher, At(10));
  clock_.AwaitWaitersUntil(At(10));
  clock_.Advance(10);
  AwaitDone(urgent);
  clock_.AwaitWaitersUntil(At(1000));
}

TEST_F(DeadlineTimerTest, ServesEveryWatchedBatcher) {
  const auto a = MakeBatcher();
  const auto b = MakeBatcher();
  const RequestRef in_a = Queue(*a, At(20));
  const RequestRef in_b = Queue(*b, At(10));
  clock_.AwaitWaitersUntil(At(10));
  clock_.Advance(20);
  AwaitDone(in_a);
  AwaitDone(in_b);
}

// The only model is unloaded while a deadline was being waited for, which then passes; the next
// model's deadlines must be kept all the same.
TEST_F(DeadlineTimerTest, BatcherWatchedAfterTheLastOneLeft_IsServed) {
  auto old = MakeBatcher();
  const RequestRef done = Queue(*old, At(100));
  clock_.AwaitWaitersUntil(At(100));
  old->FailQueued(Unavailable("unloaded"));
  timer_.Unwatch(*old);
  old.reset();
  clock_.Advance(100);
  clock_.AwaitWaitersUntil(kNever);
  const auto fresh = MakeBatcher();
  const RequestRef ref = Queue(*fresh, At(300));
  clock_.AwaitWaitersUntil(At(300));
  clock_.Advance(200);
  AwaitDone(ref);
  EXPECT_EQ(PuppetBatcher::Of(ref).outcome.code(), StatusCode::kDeadlineExceeded);
}

TEST_F(DeadlineTimerTest, Stop_JoinsWhateverItWaitsForAndTwice) {
  const auto batcher = MakeBatcher();
  Queue(*batcher, At(100));
  clock_.AwaitWaitersUntil(At(100));
  timer_.Stop();
  timer_.Stop();
}

TEST_F(DeadlineTimerTest, StopFromTwoThreads_Joins) {
  std::thread other([&] { timer_.Stop(); });
  timer_.Stop();
  other.join();
}

}  // namespace
}  // namespace penstock
