#include "transport/mailbox.h"

#include <utility>

namespace penstock {

void Mailbox::Post(Task task) {
  bool is_first = false;
  {
    MutexLock lock(mu_);
    if (is_closed_) return;
    is_first = tasks_.empty();
    tasks_.push_back(std::move(task));
  }
  if (is_first) event_.Set();
}

std::vector<Mailbox::Task> Mailbox::Take() {
  event_.Clear();
  std::vector<Task> taken;
  MutexLock lock(mu_);
  taken.swap(tasks_);
  return taken;
}

void Mailbox::Close() {
  std::vector<Task> dropped;
  MutexLock lock(mu_);
  is_closed_ = true;
  dropped.swap(tasks_);
}

}  // namespace penstock
