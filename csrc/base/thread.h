// Thread: a named std::thread that is joined when it goes.

#pragma once

#include <functional>
#include <string>
#include <thread>

namespace penstock {

// Threading: confined to its owner.
// Ownership: owns the thread.
// Blocking: Join and the destructor wait for the body to return; the owner tells it to stop first.
class Thread {
 public:
  Thread() = default;
  // Starts `body` on a new thread called `name` (the kernel keeps 15 characters), whose timed waits end
  // when they are due: by default Linux is up to 50 us late, which is as long as many of them last. The
  // body must not throw: every thread's entry function is noexcept and does its own catch-all.
  Thread(std::string name, std::function<void()> body);
  ~Thread() { Join(); }
  Thread(Thread&&) = default;
  // REQUIRES: this one holds no running thread.
  Thread& operator=(Thread&&) = default;

  void Join();

 private:
  std::thread thread_;
};

}  // namespace penstock
