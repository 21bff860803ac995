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
  thread_.Join();
}

void DeadlineTimer::Run() noexcept {
  for (;;) {
    const auto due = WaitUntilDue();
    if (due.empty()) return;
    // Without the lock: expiring delivers outcomes. An earlier expiry told meanwhile lowers
    // wake_ns_ again.
    for (const auto& batcher : due) {
      if (const int64_t next_ns = batcher->ExpireDue(); next_ns != kNever) OnEarlierExpiry(next_ns);
    }
  }
}

// The batchers to look at, once something is due; nothing when stopping.
std::vector<std::shared_ptr<Batcher>> DeadlineTimer::WaitUntilDue() {
  MutexLock lock(mu_);
  for (;;) {
    if (is_stopping_) return {};
    if (!batchers_.empty() && clock_.NowNs() >= wake_ns_) break;
    clock_.WaitUntil(changed_, mu_, batchers_.empty() ? kNever : wake_ns_);
  }
  wake_ns_ = kNever;
  return batchers_;
}

}  // namespace penstock
