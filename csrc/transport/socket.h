// Socket: a descriptor that closes itself, and what is asked of sockets here.

#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <utility>

namespace penstock {

// Threading: thread-compatible.
// Ownership: owns the descriptor.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Socket();

  int fd() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }
  void Close();

 private:
  int fd_ = -1;
};

// Sends small writes at once. Does nothing on what is no TCP socket.
void SetNoDelay(int fd);

// The peer as gRPC names it: "ipv4:1.2.3.4:5", "ipv6:%5B::1%5D:5", "unix:".
std::string PeerName(const sockaddr_storage& address);

}  // namespace penstock
