#include "worker/packet_socket.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/clock.h"
#include "base/strcat.h"

namespace penstock {
namespace {

constexpr int64_t kNsPerUs = 1000;
constexpr int64_t kUsPerS = 1'000'000;
constexpr int64_t kMaxWaitMs = 3'600'000;

void SetLimit(int fd, int option, int64_t limit_ns) {
  const int64_t limit_us = (limit_ns + kNsPerUs - 1) / kNsPerUs;  // 0 would be no limit
  const timeval limit{limit_us / kUsPerS, limit_us % kUsPerS};
  setsockopt(fd, SOL_SOCKET, option, &limit, sizeof(limit));
}

// The descriptor that came with a message, if one did.
OwnedFd AttachedFd(msghdr& message) {
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    return OwnedFd(fd);
  }
  return {};
}

}  // namespace

Result<std::pair<OwnedFd, OwnedFd>> PacketSocket::MakeEnds() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) {
    return Unavailable(StrCat("there is no connection to a worker: ", strerrordesc_np(errno)));
  }
  return std::pair(OwnedFd(fds[0]), OwnedFd(fds[1]));
}

bool PacketSocket::Send(const WorkerPacket& packet, int attached_fd) const {
  WorkerPacket copy = packet;
  iovec part{&copy, sizeof(copy)};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (attached_fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &attached_fd, sizeof(int));
  }
  ssize_t sent = 0;
  do {
    sent = sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent == static_cast<ssize_t>(sizeof(copy));
}

bool PacketSocket::TrySend(const WorkerPacket& packet) const {
  const ssize_t sent = send(fd_.get(), &packet, sizeof(packet), MSG_NOSIGNAL | MSG_DONTWAIT);
  return sent >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

PacketSocket::Received PacketSocket::Receive(bool wait, WorkerPacket* packet,
                                             OwnedFd* attached) const {
  // One byte more than a packet has, so that a longer one is seen.
  char bytes[sizeof(WorkerPacket) + 1];
  iovec part{bytes, sizeof(bytes)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (attached != nullptr) {  // else the kernel closes what comes along
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
  }
  ssize_t size = 0;
  do {
    size = recvmsg(fd_.get(), &message, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
  } while (size < 0 && errno == EINTR);
  if (size < 0) {
    return errno == EAGAIN || errno == EWOULDBLOCK ? Received::kNothing : Received::kClosed;
  }
  if (size == 0) return Received::kClosed;
  if (attached != nullptr) *attached = AttachedFd(message);
  if (size != static_cast<ssize_t>(sizeof(WorkerPacket))) return Received::kGarbage;
  std::memcpy(packet, bytes, sizeof(*packet));
  return Received::kPacket;
}

bool PacketSocket::AwaitPacket(int64_t until_ns) const {
  for (;;) {
    const int64_t now_ns = Clock::System().NowNs();
    const int64_t left_ns = std::max<int64_t>(until_ns - now_ns, 0);
    const int64_t left_ms = std::min(left_ns / kNsPerMs + (left_ns % kNsPerMs != 0), kMaxWaitMs);
    pollfd packet{fd_.get(), POLLIN, 0};
    if (poll(&packet, 1, static_cast<int>(left_ms)) > 0) return true;
    if (now_ns >= until_ns) return false;
  }
}

void PacketSocket::SetReceiveLimit(int64_t limit_ns) const {
  SetLimit(fd_.get(), SO_RCVTIMEO, limit_ns);
}

void PacketSocket::SetSendLimit(int64_t limit_ns) const {
  SetLimit(fd_.get(), SO_SNDTIMEO, limit_ns);
}

void PacketSocket::CloseSending() const { shutdown(fd_.get(), SHUT_WR); }

void PacketSocket::CloseReceiving() const { shutdown(fd_.get(), SHUT_RD); }

void PacketSocket::Close() const { shutdown(fd_.get(), SHUT_RDWR); }

}  // namespace penstock
