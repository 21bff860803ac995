// RegionCloser: the thread on which regions of shared memory are closed, those of one kind.
//
// Closing the last descriptor of an object that its client has unlinked frees its pages: some 0.1 s
// for a GiB. Whoever drops the last reference may be an I/O thread or an event loop. A GPU's driver
// may hold its thread for as long as it likes, which the system's regions must not wait for.

#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "base/mutex.h"
#include "base/thread.h"

namespace penstock {

class SharedRegion;

// How many regions, of all kinds, may be open at a time.
// Threading: thread-safe.
class RegionPlaces {
 public:
  explicit RegionPlaces(size_t most) : most_(most) {}

  // A region has a place from before it is opened until it is closed. False: there is none.
  bool Take() EXCLUDES(mu_) {
    MutexLock lock(mu_);
    if (taken_ >= most_) return false;
    taken_ += 1;
    return true;
  }
  void Leave(size_t count) noexcept EXCLUDES(mu_) {
    MutexLock lock(mu_);
    taken_ -= count;
  }

 private:
  const size_t most_;

  Mutex mu_;
  // Guarded by mu_.
  size_t taken_ GUARDED_BY(mu_) = 0;
};

// Threading: thread-safe; owns one thread.
// Ownership: owns the regions that it is given; shares their places with other closers.
// Lifecycle: constructed running; Stop joins, once all is closed. Later ones are closed by who
// brings them.
// Blocking: Stop and WaitIdle, for what is being closed. Close never.
class RegionCloser {
 public:
  // `thread`: how it is called.
  RegionCloser(std::string thread, std::shared_ptr<RegionPlaces> places)
      : places_(std::move(places)), thread_(std::move(thread), [this] { Run(); }) {}
  ~RegionCloser() { Stop(); }
  RegionCloser(const RegionCloser&) = delete;
  RegionCloser& operator=(const RegionCloser&) = delete;

  // REQUIRES: the region has a place, which it leaves once it is closed.
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

  // Constant after construction.
  const std::shared_ptr<RegionPlaces> places_;

  Mutex mu_;
  CondVar changed_;  // there is work, or it is time to stop
  CondVar some_closed_;
  // Guarded by mu_.
  const SharedRegion* first_ GUARDED_BY(mu_) = nullptr;  // a list, linked through the regions
  size_t given_ GUARDED_BY(mu_) = 0;
  size_t closed_ GUARDED_BY(mu_) = 0;  // of those
  bool is_stopping_ GUARDED_BY(mu_) = false;

  Mutex join_mu_;  // Stops may meet: only one may join
  // Last: the thread uses everything above.
  Thread thread_ GUARDED_BY(join_mu_);
};

}  // namespace penstock
