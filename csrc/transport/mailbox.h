// Mailbox: what other threads ask of an I/O thread.

#pragma once

#include <functional>
#include <vector>

#include "base/event_fd.h"
#include "base/mutex.h"

namespace penstock {

// Threading: thread-safe; Take on the I/O thread.
// Ownership: owns the eventfd. Shared by the thread and by whoever may post, for as long as either
// lives.
class Mailbox {
 public:
  using Task = std::function<void()>;

  Mailbox() = default;
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  // Readable while tasks wait.
  int fd() const { return event_.fd(); }
  // Has `task` run on the I/O thread; drops it once the mailbox is closed.
  void Post(Task task);
  // Clears fd() and gives what waits, oldest first.
  std::vector<Task> Take();
  // From now on tasks are dropped; those that wait too.
  void Close();

 private:
  const EventFd event_;

  Mutex mu_;
  // Guarded by mu_.
  std::vector<Task> tasks_ GUARDED_BY(mu_);
  bool is_closed_ GUARDED_BY(mu_) = false;
};

}  // namespace penstock
