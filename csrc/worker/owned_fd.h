// OwnedFd: a descriptor that is closed when its owner goes.

#pragma once

#include <unistd.h>

#include <utility>

namespace penstock {

// Threading: thread-compatible. Ownership: owns the descriptor; -1 = none.
class OwnedFd {
 public:
  OwnedFd() = default;
  explicit OwnedFd(int fd) : fd_(fd) {}
  OwnedFd(OwnedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~OwnedFd() {
    if (fd_ >= 0) close(fd_);
  }

  int get() const { return fd_; }
  void Close() { OwnedFd closed(std::exchange(fd_, -1)); }

 private:
  int fd_ = -1;
};

}  // namespace penstock
