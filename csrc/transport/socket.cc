#include "transport/socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "base/strcat.h"

namespace penstock {

Socket::~Socket() { Close(); }

void Socket::Close() {
  if (fd_ >= 0) close(std::exchange(fd_, -1));
}

void SetNoDelay(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

std::string PeerName(const sockaddr_storage& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (address.ss_family == AF_INET) {
    sockaddr_in in;
    std::memcpy(&in, &address, sizeof(in));
    inet_ntop(AF_INET, &in.sin_addr, text.data(), text.size());
    return StrCat("ipv4:", std::string_view(text.data()), ":", ntohs(in.sin_port));
  }
  if (address.ss_family == AF_INET6) {
    sockaddr_in6 in;
    std::memcpy(&in, &address, sizeof(in));
    inet_ntop(AF_INET6, &in.sin6_addr, text.data(), text.size());
    return StrCat("ipv6:%5B", std::string_view(text.data()), "%5D:", ntohs(in.sin6_port));
  }
  return "unix:";
}

}  // namespace penstock
