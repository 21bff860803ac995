#include "batcher/completion_queue.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace penstock {

CompletionQueue::CompletionQueue() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

CompletionQueue::~CompletionQueue() { close(fd_); }

void CompletionQueue::Push(RequestRef request) {
  MutexLock lock(mu_);
  waiting_.push_back(std::move(request));
  needs_signal_.store(true);
}

void CompletionQueue::Signal() {
  if (!needs_signal_.load() || is_in_turn_.load()) return;
  if (!needs_signal_.exchange(false)) return;
  // Fails only when the counter is at its maximum, and then the descriptor is readable anyway.
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(fd_, &one, sizeof(one));
  // After the write: a Take in between leaves the descriptor readable, and the next one reads it.
  // The other way round it would find nothing to read, and no later one would try.
  is_readable_.store(true);
}

void CompletionQueue::Take(std::vector<RequestRef>* out) {
  out->clear();
  // Before the swap: a push after it signals again.
  is_in_turn_.store(false);
  if (is_readable_.exchange(false)) {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t n = read(fd_, &count, sizeof(count));
  }
  MutexLock lock(mu_);
  needs_signal_.store(false);
  waiting_.swap(*out);
}

}  // namespace penstock
