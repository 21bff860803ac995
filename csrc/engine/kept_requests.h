// KeptRequests: the requests of one version whose batch is over and whose answers are not.

#pragma once

#include <cstdint>
#include <unordered_map>
#include <unordered_set>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "engine/infer_request.h"

namespace penstock {

// Threading: thread-safe.
// Ownership: holds a reference on each request, from Add to Remove.
// Blocking: WaitEmpty.
class KeptRequests {
 public:
  // Before the request is kept: it may end before this returns else. `owner` is what keeps it.
  void Add(const RequestRef& request, const void* owner);
  void Remove(const InferRequest& request);
  // False: not empty by `deadline_ns`.
  bool WaitEmpty(Clock& clock, int64_t deadline_ns);
  // Those that keep one now.
  std::unordered_set<const void*> Owners() const;
  // Ends what is kept with `status`.
  void FailAll(const Status& status);

 private:
  struct Kept {
    RequestRef request;
    const void* owner;  // not used but for its address
  };

  mutable Mutex mu_;
  CondVar emptied_;
  // Guarded by mu_.
  std::unordered_map<const InferRequest*, Kept> requests_ GUARDED_BY(mu_);
};

}  // namespace penstock
