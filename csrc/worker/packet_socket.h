// PacketSocket: one end of a connection that carries packets (messages.h), each whole.

#pragma once

#include <cstdint>
#include <utility>

#include "base/status.h"
#include "worker/messages.h"
#include "worker/owned_fd.h"

namespace penstock {

// Threading: thread-safe.
// Ownership: owns the descriptor.
// Blocking: Receive, up to the time-out that was set; Send, for seconds where the other end does not
// read.
class PacketSocket {
 public:
  explicit PacketSocket(OwnedFd fd) : fd_(std::move(fd)) {}

  // Two ends of a new connection, closed at exec. UNAVAILABLE where the system gives none.
  static Result<std::pair<OwnedFd, OwnedFd>> MakeEnds();

  int fd() const { return fd_.get(); }

  // False where the other end is closed, or takes nothing.
  bool Send(const WorkerPacket& packet, int attached_fd = -1) const;
  // Sends without waiting. False: it cannot be taken now, and may be later.
  bool TrySend(const WorkerPacket& packet) const;
  enum class Received { kPacket, kNothing, kClosed, kGarbage };
  // kNothing: the time-out passed, or `wait` is false and nothing is there. `attached`: of a packet
  // that came with a descriptor, that; where it is null, none is taken.
  Received Receive(bool wait, WorkerPacket* packet, OwnedFd* attached = nullptr) const;
  // For Receive; 0 = wait for ever.
  // False: there is nothing to receive until then, on the system's clock (kNever: there will be).
  bool AwaitPacket(int64_t until_ns) const;
  void SetReceiveLimit(int64_t limit_ns) const;
  // For Send; 0 = wait for ever.
  void SetSendLimit(int64_t limit_ns) const;
  // Nothing more will be sent: the other end reads what was, and then the end.
  void CloseSending() const;
  // Whoever is in Receive or AwaitPacket returns at once, and so will whoever comes; the other end does
  // not notice before it sends.
  void CloseReceiving() const;
  // Whoever is in Receive or Send returns at once.
  void Close() const;

 private:
  const OwnedFd fd_;
};

}  // namespace penstock
