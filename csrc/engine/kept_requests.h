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
  // Before the request is kept: it may end before this returns else. `by`: which of the version's
  // instances keeps it, any address of its own.
  void Add(const RequestRef& request, const void* by);
  void Remove(const InferRequest& request);
  // False: not empty by `deadline_ns`; of what `by` keeps, or of all.
  bool WaitEmpty(Clock& clock, int64_t deadline_ns, const void* by = nullptr);
  // Those of the version's instances that keep one now.
  std::unordered_set<const void*> Keepers() const;
  // Ends what is kept with `status`.
  void FailAll(const Status& status);

 private:
  struct Kept {
    RequestRef request;
    const void* by;
  };

  bool IsEmptyLocked(const void* by) const REQUIRES(mu_);

  mutable Mutex mu_;
  CondVar removed_;
  // Guarded by mu_.
  std::unordered_map<const InferRequest*, Kept> requests_ GUARDED_BY(mu_);
};

}  // namespace penstock
