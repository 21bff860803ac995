#include "testing/fake_clock.h"

#include <algorithm>

namespace penstock {

void FakeClock::WaitUntil(CondVar& cv, Mutex& mu, int64_t deadline_ns) {
  Waiter self{&cv, &mu, deadline_ns};
  {
    MutexLock lock(mu_);
    if (deadline_ns <= NowNs()) return;
    waiters_.push_back(&self);
    waiters_changed_.NotifyAll();
  }
  cv.Wait(mu);
  MutexLock lock(mu_);
  std::erase(waiters_, &self);
}

void FakeClock::AdvanceTo(int64_t now_ns) {
  std::vector<Waiter> due;
  {
    MutexLock lock(mu_);
    now_ns_.store(now_ns);
    for (const Waiter* waiter : waiters_) {
      if (waiter->deadline_ns <= now_ns) due.push_back(*waiter);
    }
  }
  for (const Waiter& waiter : due) {
    // A thread that is about to wait holds its mutex until it does: it cannot miss this.
    MutexLock lock(*waiter.mu);
    waiter.cv->NotifyAll();
  }
}

void FakeClock::AwaitWaiters(size_t count) {
  MutexLock lock(mu_);
  while (waiters_.size() < count) waiters_changed_.Wait(mu_);
}

void FakeClock::AwaitWaitersUntil(int64_t deadline_ns, size_t count) {
  MutexLock lock(mu_);
  const auto waits = [deadline_ns](const Waiter* w) { return w->deadline_ns == deadline_ns; };
  while (static_cast<size_t>(std::count_if(waiters_.begin(), waiters_.end(), waits)) < count) {
    waiters_changed_.Wait(mu_);
  }
}

}  // namespace penstock
