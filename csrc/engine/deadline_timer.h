// DeadlineTimer: the one thread that ends queued requests whose time is up, for all versions.

#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "batcher/batcher.h"

namespace penstock {

// A Batcher's expiry observer: sleeps until the earliest expiry it was told of, then asks every
// watched batcher to expire what is due and for its next expiry. Idle (no request with a deadline)
// it never wakes.
//
// Threading: thread-safe; owns one thread, "ps-deadlines".
// Ownership: shares the batchers it watches.
// Lifecycle: constructed running; Stop joins.
// Blocking: Stop, until the thread has ended.
class DeadlineTimer final : public ExpiryObserver {
 public:
  explicit DeadlineTimer(Clock& clock);
  ~DeadlineTimer() override { Stop(); }
  DeadlineTimer(const DeadlineTimer&) = delete;
  DeadlineTimer& operator=(const DeadlineTimer&) = delete;

  void Watch(std::shared_ptr<Batcher> batcher);
  void Unwatch(const Batcher& batcher);
  void OnEarlierExpiry(int64_t expiry_ns) override;
  void Stop();

 private:
  void Run() noexcept;
  bool WaitUntilDue(std::vector<std::shared_ptr<Batcher>>* batchers);

  // Constant after construction.
  Clock& clock_;

  Mutex mu_;
  CondVar changed_;
  // Guarded by mu_.
  std::vector<std::shared_ptr<Batcher>> batchers_ GUARDED_BY(mu_);
  int64_t wake_ns_ GUARDED_BY(mu_) = kNever;
  bool is_stopping_ GUARDED_BY(mu_) = false;

  Mutex join_mu_;  // Stops may meet: only one may join
  // Last: the thread uses everything above.
  Thread thread_ GUARDED_BY(join_mu_);
};

}  // namespace penstock
