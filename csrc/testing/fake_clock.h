// FakeClock: time that stands still until a test moves it.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"

namespace penstock {

// Time starts at kStartNs and moves only by Advance, which wakes every thread whose deadline it
// reaches. A thread in WaitUntil is otherwise woken by its condition variable alone, so a test that
// needs real time to pass hangs instead of passing by luck.
//
// Threading: thread-safe. Ownership: borrows the mutex and the condition variable of each waiting
// thread; Advance may touch those of the threads that wait when it is called, so what they belong
// to outlives the call. Blocking: AwaitWaiters, until others wait.
class FakeClock final : public Clock {
 public:
  static constexpr int64_t kStartNs = 1'000'000'000;

  int64_t NowNs() const override { return now_ns_.load(); }
  void WaitUntil(CondVar& cv, Mutex& mu, int64_t deadline_ns) override REQUIRES(mu);

  // Moves time forward and wakes those whose deadline has come. REQUIRES: the caller holds no mutex
  // that a waiting thread waits with.
  void Advance(int64_t delta_ns) { AdvanceTo(NowNs() + delta_ns); }
  void AdvanceTo(int64_t now_ns);

  // Waits (in real time) until `count` threads are in WaitUntil; until `count` of them wait for
  // exactly `deadline_ns`. A thread counts from when it will notice a notification.
  void AwaitWaiters(size_t count);
  void AwaitWaitersUntil(int64_t deadline_ns, size_t count = 1);

 private:
  struct Waiter {
    CondVar* cv;
    Mutex* mu;
    int64_t deadline_ns;
  };

  // Own synchronisation.
  std::atomic<int64_t> now_ns_{kStartNs};

  Mutex mu_;  // after the mutex of whoever waits
  CondVar waiters_changed_;
  // Guarded by mu_.
  std::vector<Waiter*> waiters_ GUARDED_BY(mu_);
};

}  // namespace penstock
