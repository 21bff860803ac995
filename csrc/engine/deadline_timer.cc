#include "engine/deadline_timer.h"

#include <algorithm>
#include <utility>

namespace penstock {

DeadlineTimer::DeadlineTimer(Clock& clock)
    : clock_(clock), thread_("ps-deadlines", [this] { Run(); }) {}

void DeadlineTimer::Watch(std::shared_ptr<Batcher> batcher) {
  MutexLock lock(mu_);
  batchers_.push_back(std::move(batcher));
}

void DeadlineTimer::Unwatch(const Batcher& batcher) {
  MutexLock lock(mu_);
  std::erase_if(batchers_, [&](const auto& watched) { return watched.get() == &batcher; });
}

void DeadlineTimer::OnEarlierExpiry(int64_t expiry_ns) {
  MutexLock lock(mu_);
  if (expiry_ns >= wake_ns_) return;
  wake_ns_ = expiry_ns;
  changed_.NotifyOne();
}

void DeadlineTimer::Stop() {
  {
    MutexLock lock(mu_);
    is_stopping_ = true;
    changed_.NotifyOne();
  }
  MutexLock lock(join_mu_);
  thread_.Join();
}

void DeadlineTimer::Run() noexcept {
  for (std::vector<std::shared_ptr<Batcher>> batchers; WaitUntilDue(&batchers);) {
    // Without the lock: expiring delivers outcomes. An earlier expiry told meanwhile lowers
    // wake_ns_ again.
    for (const auto& batcher : batchers) {
      if (const int64_t next_ns = batcher->ExpireDue(); next_ns != kNever) OnEarlierExpiry(next_ns);
    }
  }
}

// The batchers to look at, once something is due, be there any or not. False: stopping.
bool DeadlineTimer::WaitUntilDue(std::vector<std::shared_ptr<Batcher>>* batchers) {
  batchers->clear();  // what went meanwhile is not kept alive by the wait
  MutexLock lock(mu_);
  while (!is_stopping_ && clock_.NowNs() < wake_ns_) {
    clock_.WaitUntil(changed_, mu_, wake_ns_);
  }
  wake_ns_ = kNever;
  *batchers = batchers_;
  return !is_stopping_;
}

}  // namespace penstock
