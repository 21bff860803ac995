#include "transport/mailbox.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <system_error>
#include <utility>

namespace penstock {

Mailbox::Mailbox() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

Mailbox::~Mailbox() { close(fd_); }

void Mailbox::Post(Task task) {
  bool is_first = false;
  {
    MutexLock lock(mu_);
    if (is_closed_) return;
    is_first = tasks_.empty();
    tasks_.push_back(std::move(task));
  }
  if (!is_first) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(fd_, &one, sizeof(one));
}

std::vector<Mailbox::Task> Mailbox::Take() {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t n = read(fd_, &count, sizeof(count));
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
