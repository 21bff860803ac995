// KeptRequests: the requests of one version whose batch is over and whose answers are not.

#pragma once

#include <cstdint>
#include <unordered_map>

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
  // Before the request is kept: it may end before this returns else.
  void Add(const RequestRef& request);
  void Remove(const InferRequest& request);
  // False: not empty by `deadline_ns`.
  bool WaitEmpty(Clock& clock, int64_t deadline_ns);
  // Ends what is kept with `status`.
  void FailAll(const Status& status);

 private:
  Mutex mu_;
  CondVar emptied_;
  // Guarded by mu_.
  std::unordered_map<const InferRequest*, RequestRef> requests_ GUARDED_BY(mu_);
};

}  // namespace penstock
