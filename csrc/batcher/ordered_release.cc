#include "batcher/ordered_release.h"

#include <utility>

namespace penstock {

void OrderedRelease::Add(Request& request) {
  MutexLock lock(mu_);
  request.sequence_ = first_sequence_ + window_.size();
  window_.emplace_back(&request);
}

void OrderedRelease::Skip(Request& request) {
  {
    MutexLock lock(mu_);
    window_[request.sequence_ - first_sequence_] = RequestRef();
  }
  ReleaseFinished();
}

void OrderedRelease::Finish(Request& request, const Status& outcome) {
  {
    MutexLock lock(mu_);
    request.outcome_ = outcome;
    request.is_finished_ = true;
  }
  ReleaseFinished();
}

// Delivery happens without the lock, by one thread at a time, so that the order holds.
void OrderedRelease::ReleaseFinished() {
  mu_.Lock();
  if (!is_releasing_) {
    is_releasing_ = true;
    while (!window_.empty() && (!window_.front() || window_.front()->is_finished_)) {
      RequestRef request = std::move(window_.front());
      window_.pop_front();
      ++first_sequence_;
      if (!request) continue;
      mu_.Unlock();
      request->OnDone(request->outcome_);
      request->Wake();
      request = RequestRef();  // without the lock: the last reference frees what it holds
      mu_.Lock();
    }
    is_releasing_ = false;
  }
  mu_.Unlock();
}

}  // namespace penstock
