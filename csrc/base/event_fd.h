// EventFd: a descriptor that one thread makes readable for another's loop.

#pragma once

namespace penstock {

// Threading: thread-safe.
// Ownership: owns the descriptor.
// Blocking: never.
class EventFd {
 public:
  // Throws std::system_error when the process has no more descriptors.
  EventFd();
  ~EventFd();
  EventFd(const EventFd&) = delete;
  EventFd& operator=(const EventFd&) = delete;

  int fd() const { return fd_; }
  void Set() const;    // readable, if it is not
  void Clear() const;  // not readable, if it is

 private:
  const int fd_;
};

}  // namespace penstock
