// RegionCloser: the thread on which regions of shared memory are closed.
//
// Closing the last descriptor of an object that its client has unlinked frees its pages: some 0.1 s
// for a GiB. Whoever drops the last reference may be an I/O thread or an event loop.

#pragma once

#include <cstddef>

#include "base/mutex.h"
#include "base/thread.h"

namespace penstock {

class SharedRegion;

// Threading: thread-safe; owns one thread, "ps-regions".
// Ownership: owns the regions that it is given.
// Lifecycle: constructed running; Stop joins, once all is closed. Later ones are closed by who
// brings them.
// Blocking: Stop and WaitIdle, for what is being closed. Close never.
class RegionCloser {
 public:
  RegionCloser() : thread_("ps-regions", [this] { Run(); }) {}
  ~RegionCloser() { Stop(); }
  RegionCloser(const RegionCloser&) = delete;
  RegionCloser& operator=(const RegionCloser&) = delete;

  // A region's file is one of at most `most` that are open at a time: from before it is opened
  // until Close has closed it, or until LeavePlace where it was not opened. False: there is no room.
  bool TakePlace(size_t most);
  void LeavePlace() noexcept;

  // REQUIRES: the region has a place.
  void Close(const SharedRegion* region) noexcept;
  // Until all that was given before is closed, whatever is given meanwhile.
  void WaitIdle();
  void Stop();

  // How many its thread has closed.
  size_t TestOnlyClosed() {
    MutexLock lock(mu_);
    return closed_;
  }

 private:
  void Run() noexcept;
  const SharedRegion* WaitForWork(size_t closed);

  Mutex mu_;
  CondVar changed_;  // there is work, or it is time to stop
  CondVar some_closed_;
  // Guarded by mu_.
  const SharedRegion* first_ GUARDED_BY(mu_) = nullptr;  // a list, linked through the regions
  size_t given_ GUARDED_BY(mu_) = 0;
  size_t closed_ GUARDED_BY(mu_) = 0;  // of those
  size_t open_ GUARDED_BY(mu_) = 0;    // places taken and not left
  bool is_stopping_ GUARDED_BY(mu_) = false;

  Mutex join_mu_;  // Stops may meet: only one may join
  // Last: the thread uses everything above.
  Thread thread_ GUARDED_BY(join_mu_);
};

}  // namespace penstock
