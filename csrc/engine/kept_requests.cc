#include "engine/kept_requests.h"

#include <vector>

#include "engine/response_channel.h"

namespace penstock {

void KeptRequests::Add(const RequestRef& request, const void* owner) {
  MutexLock lock(mu_);
  requests_.emplace(&AsInfer(request), Kept{request, owner});
}

std::unordered_set<const void*> KeptRequests::Owners() const {
  std::unordered_set<const void*> owners;
  MutexLock lock(mu_);
  for (const auto& [key, kept] : requests_) owners.insert(kept.owner);
  return owners;
}

void KeptRequests::Remove(const InferRequest& request) {
  std::unordered_map<const InferRequest*, Kept>::node_type removed;  // goes without the lock
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
    for (const auto& [key, kept] : requests_) requests.push_back(kept.request);
  }
  for (const RequestRef& request : requests) AsInfer(request).channel->Fail(status);
}

}  // namespace penstock
