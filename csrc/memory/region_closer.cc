#include "memory/region_closer.h"

#include <utility>

#include "memory/shared_region.h"

namespace penstock {

void RegionCloser::Close(const SharedRegion* region) noexcept {
  {
    MutexLock lock(mu_);
    if (!is_stopping_) {
      region->next_closing_ = std::exchange(first_, region);
      given_ += 1;
      changed_.NotifyOne();
      return;
    }
  }
  delete region;
  places_->Leave(1);
}

void RegionCloser::WaitIdle() {
  MutexLock lock(mu_);
  const size_t given = given_;  // what others give meanwhile must not hold up who asks
  while (closed_ < given) some_closed_.Wait(mu_);
}

void RegionCloser::Stop() {
  {
    MutexLock lock(mu_);
    is_stopping_ = true;
    changed_.NotifyOne();
  }
  MutexLock lock(join_mu_);
  thread_.Join();
}

void RegionCloser::Run() noexcept {
  size_t closed = 0;
  while (const SharedRegion* next = WaitForWork(closed)) {
    for (closed = 0; next != nullptr; ++closed) delete std::exchange(next, next->next_closing_);
  }
}

// All that is to be closed, after so many that were; null: nothing is, and nothing will be.
const SharedRegion* RegionCloser::WaitForWork(size_t closed) {
  places_->Leave(closed);
  MutexLock lock(mu_);
  closed_ += closed;  // all of those that were given first
  if (closed > 0) some_closed_.NotifyAll();
  while (first_ == nullptr && !is_stopping_) changed_.Wait(mu_);
  return std::exchange(first_, nullptr);
}

}  // namespace penstock
