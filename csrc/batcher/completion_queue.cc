#include "batcher/completion_queue.h"

#include <utility>

namespace penstock {

void CompletionQueue::Push(RequestRef request) {
  MutexLock lock(mu_);
  waiting_.push_back(std::move(request));
  needs_signal_.store(true);
}

void CompletionQueue::Signal() {
  if (!needs_signal_.load() || is_in_turn_.load()) return;
  if (!needs_signal_.exchange(false)) return;
  event_.Set();
  // After that: a Take in between leaves the descriptor readable, and the next one reads it.
  // The other way round it would find nothing to read, and no later one would try.
  is_readable_.store(true);
}

void CompletionQueue::SignalAgain() {
  needs_signal_.store(true);
  Signal();
}

void CompletionQueue::Take(std::vector<RequestRef>* out) {
  out->clear();
  // Before the swap: a push after it signals again.
  is_in_turn_.store(false);
  if (is_readable_.exchange(false)) event_.Clear();
  MutexLock lock(mu_);
  needs_signal_.store(false);
  waiting_.swap(*out);
}

}  // namespace penstock
