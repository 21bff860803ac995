// OrderedRelease: delivers outcomes in the order in which requests arrived (preserve_ordering).

#pragma once

#include <cstdint>
#include <deque>

#include "base/mutex.h"
#include "batcher/request.h"

namespace penstock {

// A request that ends before its turn waits for those that arrived before it. One that never ran
// (expired, cancelled) is skipped: its own outcome was delivered at once, and others do not wait
// for it.
//
// Threading: thread-safe. Lock order: its lock comes after the Batcher's.
// Ownership: holds a reference on each request that was added and not yet released.
class OrderedRelease {
 public:
  // `request` has arrived. In arrival order: under the Batcher's lock.
  void Add(Request& request);
  // `request` left the queue without having run.
  void Skip(Request& request);
  // `request` has run; delivers it and whatever waited for it, or leaves it for whoever is first.
  void Finish(Request& request, const Status& outcome);

 private:
  void ReleaseFinished();

  Mutex mu_;
  // Guarded by mu_.
  std::deque<RequestRef> window_ GUARDED_BY(mu_);  // in arrival order; empty reference = skipped
  uint64_t first_sequence_ GUARDED_BY(mu_) = 0;    // of window_.front()
  bool is_releasing_ GUARDED_BY(mu_) = false;  // a thread is delivering: it will see new ones too
};

}  // namespace penstock
