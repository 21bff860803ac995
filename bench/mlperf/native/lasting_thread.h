// LastingThread: runs work on a thread that is kept for the next one.

#pragma once

#include <functional>
#include <memory>

namespace penstock::loadgen {

// As Thread, but its thread goes on when the work has returned, and never ends: LoadGen's logger
// keeps pointers to what a thread logs with (Logger::threads_to_swap_deferred_), and may follow them
// after a thread has ended.
// Threading: confined to its owner.
// Ownership: while it has work, of the thread, which is the process's otherwise.
// Blocking: Join and the destructor wait for the work to return; the owner tells it to stop first.
class LastingThread {
 public:
  LastingThread();
  // Begins `work`, which must not throw.
  explicit LastingThread(std::function<void()> work);
  ~LastingThread();
  LastingThread(LastingThread&&) noexcept;
  // REQUIRES: this one has no work.
  LastingThread& operator=(LastingThread&&) noexcept;

  void Join();

 private:
  struct Worker;
  struct Pool;

  static Pool& pool();
  static void Serve(Worker* worker) noexcept;

  std::unique_ptr<Worker> worker_;
};

}  // namespace penstock::loadgen
