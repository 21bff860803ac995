// ChildChannel: the worker's end of a connection, in a worker that is a native program, and the slabs
// that came over it.

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "base/status.h"
#include "worker/messages.h"
#include "worker/packet_socket.h"

namespace penstock {

// Has the kernel kill this process and what it started once the server has gone, whatever it does
// then. REQUIRES: it was started as process.h says.
void HoldLifeline();

// Threading: confined to its thread.
// Ownership: owns the socket and the mappings; what lies in a slab is the server's to use again once
// it was answered.
// Blocking: Receive and Reserve, until the server says something.
class ChildChannel {
 public:
  explicit ChildChannel(OwnedFd fd) : socket_(std::move(fd)) {}
  ~ChildChannel();
  ChildChannel(const ChildChannel&) = delete;
  ChildChannel& operator=(const ChildChannel&) = delete;

  // Called for each slab that is mapped, also those that are: what it gives lives as long. But for
  // those of one page, which hold a message, and those that serve one batch.
  using Pin = std::function<std::shared_ptr<void>(std::span<uint8_t>)>;
  void SetPin(Pin pin);

  // The next packet that is not about slabs; nullopt: the server wants no more, or cannot be
  // understood.
  std::optional<WorkerPacket> Receive();
  // INVALID_ARGUMENT where there is no such part of a slab.
  Result<std::span<uint8_t>> At(uint32_t slab, uint64_t offset, uint64_t size);

  // Outputs go to this slab from now on.
  void UseOutputs(uint32_t slab) { outputs_ = slab; }
  // The slab for outputs, of at least `size_bytes`; what was written before may be lost. Empty: there
  // is none to be had; where the server has no memory (has_no_room), a smaller one is still there.
  std::span<uint8_t> Reserve(size_t size_bytes);
  // Why the last Reserve, or SendBody, was in vain.
  bool has_no_room() const { return has_no_room_; }
  // Sends a packet whose body is put at `offset`, or the next place that suits, of the slab for
  // outputs. REQUIRES: what lies there before `offset` was reserved with room for the body, or is
  // not needed. False: the server does not take it.
  bool SendBody(WorkerPacket packet, std::string_view body, size_t offset = 0);
  bool Send(const WorkerPacket& packet) { return socket_.Send(packet); }

 private:
  struct Mapping {
    std::span<uint8_t> memory;
    bool is_for_one_batch = false;
    std::shared_ptr<void> pinned = nullptr;
  };

  // Of one packet; false: there are no more.
  bool ReceiveOne(WorkerPacket* packet);
  bool Map(const WorkerPacket& packet, const OwnedFd& fd);
  void Unmap(uint32_t slab);
  void PinMapping(Mapping& mapping);

  const PacketSocket socket_;
  std::map<uint32_t, Mapping> slabs_;
  uint32_t outputs_ = 0;  // the slab for outputs
  bool has_no_room_ = false;
  Pin pin_;
};

}  // namespace penstock
