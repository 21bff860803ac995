#include "engine/kept_requests.h"

#include <vector>

#include "engine/response_channel.h"

namespace penstock {

void KeptRequests::Add(const RequestRef& request) {
  MutexLock lock(mu_);
  requests_.emplace(&AsInfer(request), request);
}

void KeptRequests::Remove(const InferRequest& request) {
  std::unordered_map<const InferRequest*, RequestRef>::node_type removed;  // goes without the lock
  MutexLock lock(mu_);
  removed = requests_.extract(&request);
  if (requests_.empty()) emptied_.NotifyAll();
}

bool KeptRequests::WaitEmpty(Clock& clock, int64_t deadline_ns) {
  MutexLock lock(mu_);
  while (!requests_.empty()) {
    if (clock.NowNs() >= deadline_ns) return false;
    clock.WaitUntil(emptied_, mu_, deadline_ns);
  }
  return true;
}

void KeptRequests::FailAll(const Status& status) {
  std::vector<RequestRef> requests;
  {
    MutexLock lock(mu_);
    for (const auto& [key, request] : requests_) requests.push_back(request);
  }
  for (const RequestRef& request : requests) AsInfer(request).channel->Fail(status);
}

}  // namespace penstock
