#include "testing/fake_clock.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace penstock {
namespace {

// Waits on a clock as the product's loops do: until `deadline_ns` or until told.
class Sleeper {
 public:
  Sleeper(FakeClock& clock, int64_t deadline_ns)
      : clock_(clock), deadline_ns_(deadline_ns), thread_([this] { Run(); }) {}
  ~Sleeper() { thread_.join(); }

  void Tell() {
    MutexLock lock(mu_);
    is_told_ = true;
    cv_.NotifyAll();
  }
  bool is_awake() {
    MutexLock lock(mu_);
    return is_awake_;
  }

 private:
  void Run() {
    MutexLock lock(mu_);
    while (!is_told_ && clock_.NowNs() < deadline_ns_) clock_.WaitUntil(cv_, mu_, deadline_ns_);
    is_awake_ = true;
  }

  FakeClock& clock_;
  const int64_t deadline_ns_;
  Mutex mu_;
  CondVar cv_;
  bool is_told_ GUARDED_BY(mu_) = false;
  bool is_awake_ GUARDED_BY(mu_) = false;
  std::thread thread_;
};

TEST(FakeClockTest, StandsStillUntilMoved) {
  FakeClock clock;
  EXPECT_EQ(clock.NowNs(), FakeClock::kStartNs);
  clock.Advance(5);
  EXPECT_EQ(clock.NowNs(), FakeClock::kStartNs + 5);
}

TEST(FakeClockTest, Advance_WakesThoseWhoseDeadlineHasComeAndNoOther) {
  FakeClock clock;
  const int64_t now_ns = clock.NowNs();
  Sleeper late(clock, now_ns + 200);
  {
    Sleeper early(clock, now_ns + 100);
    clock.AwaitWaiters(2);
    clock.Advance(99);
    EXPECT_FALSE(early.is_awake());
    clock.Advance(1);
  }  // joins
  clock.AwaitWaitersUntil(now_ns + 200);
  EXPECT_FALSE(late.is_awake());
  clock.Advance(100);
}

TEST(FakeClockTest, Notification_WakesBeforeTheDeadline) {
  FakeClock clock;
  Sleeper sleeper(clock, kNever);
  clock.AwaitWaiters(1);
  sleeper.Tell();
}

TEST(FakeClockTest, PastDeadline_DoesNotWait) {
  FakeClock clock;
  Mutex mu;
  CondVar cv;
  MutexLock lock(mu);
  clock.WaitUntil(cv, mu, clock.NowNs());
}

TEST(FakeClockTest, ManyThreads_AllWake) {
  FakeClock clock;
  std::vector<std::unique_ptr<Sleeper>> sleepers;
  for (int i = 1; i <= 8; ++i) {
    sleepers.push_back(std::make_unique<Sleeper>(clock, clock.NowNs() + i));
  }
  for (int i = 0; i < 8; ++i) clock.Advance(1);  // while some are still on their way to wait
  sleepers.clear();
}

}  // namespace
}  // namespace penstock
