#include "engine/kept_requests.h"

#include <algorithm>
#include <vector>

#include "engine/response_channel.h"

namespace penstock {

void KeptRequests::Add(const RequestRef& request, const void* by) {
  MutexLock lock(mu_);
  requests_.emplace(&AsInfer(request), Kept{request, by});
}

std::unordered_set<const void*> KeptRequests::Keepers() const {
  std::unordered_set<const void*> keepers;
  MutexLock lock(mu_);
  for (const auto& [key, kept] : requests_) keepers.insert(kept.by);
  return keepers;
}

void KeptRequests::Remove(const InferRequest& request) {
  std::unordered_map<const InferRequest*, Kept>::node_type removed;  // goes without the lock
  MutexLock lock(mu_);
  removed = requests_.extract(&request);
  removed_.NotifyAll();
}

bool KeptRequests::IsEmptyLocked(const void* by) const {
  if (by == nullptr) return requests_.empty();
  return std::none_of(requests_.begin(), requests_.end(),
                      [by](const auto& each) { return each.second.by == by; });
}

bool KeptRequests::WaitEmpty(Clock& clock, int64_t deadline_ns, const void* by) {
  MutexLock lock(mu_);
  while (!IsEmptyLocked(by)) {
    if (clock.NowNs() >= deadline_ns) return false;
    clock.WaitUntil(removed_, mu_, deadline_ns);
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
