#include "worker/child_channel.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX's, not C++'s
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "worker/process.h"
#include "worker/slab.h"

namespace penstock {

void HoldLifeline() {
  fcntl(kWorkerLifelineFd, F_SETOWN, -getpgrp());
  fcntl(kWorkerLifelineFd, F_SETSIG, SIGKILL);
  fcntl(kWorkerLifelineFd, F_SETFL, O_ASYNC);
  pollfd end{kWorkerLifelineFd, 0, 0};
  if (poll(&end, 1, 0) > 0) kill(-getpgrp(), SIGKILL);  // it was closed before
}

ChildChannel::~ChildChannel() {
  while (!slabs_.empty()) Unmap(slabs_.begin()->first);
}

void ChildChannel::SetPin(Pin pin) {
  pin_ = std::move(pin);
  for (auto& [id, mapping] : slabs_) PinMapping(mapping);
}

bool ChildChannel::ReceiveOne(WorkerPacket* packet) {
  OwnedFd attached;
  if (socket_.Receive(/*wait=*/true, packet, &attached) != PacketSocket::Received::kPacket) {
    return false;
  }
  if (packet->kind == WorkerPacketKind::kMap) return Map(*packet, attached);
  if (packet->kind == WorkerPacketKind::kUnmap) Unmap(packet->slab);
  return true;
}

std::optional<WorkerPacket> ChildChannel::Receive() {
  WorkerPacket packet;
  do {
    if (!ReceiveOne(&packet)) return std::nullopt;
  } while (packet.kind == WorkerPacketKind::kMap || packet.kind == WorkerPacketKind::kUnmap);
  return packet;
}

bool ChildChannel::Map(const WorkerPacket& packet, const OwnedFd& fd) {
  if (fd.get() < 0) return false;
  void* data = mmap(nullptr, packet.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (data == MAP_FAILED) return false;
  Unmap(packet.slab);
  Mapping& mapping = slabs_[packet.slab];
  mapping.memory = {static_cast<uint8_t*>(data), packet.size};
  mapping.is_for_one_batch = (packet.value & kMapForOneBatch) != 0;
  if ((packet.value & kMapForOutputs) != 0) outputs_ = packet.slab;
  PinMapping(mapping);
  return true;
}

// A page holds one message, which is read once. What serves one batch is not worth it either.
void ChildChannel::PinMapping(Mapping& mapping) {
  if (!pin_ || mapping.memory.size() <= Slab::kPageBytes || mapping.is_for_one_batch) return;
  mapping.pinned = pin_(mapping.memory);
}

void ChildChannel::Unmap(uint32_t slab) {
  const auto found = slabs_.find(slab);
  if (found == slabs_.end()) return;
  found->second.pinned.reset();
  munmap(found->second.memory.data(), found->second.memory.size());
  slabs_.erase(found);
}

Result<std::span<uint8_t>> ChildChannel::At(uint32_t slab, uint64_t offset, uint64_t size) {
  const auto found = slabs_.find(slab);
  if (found == slabs_.end() || offset > found->second.memory.size() ||
      size > found->second.memory.size() - offset) {
    return InvalidArgument("a place that lies in no slab");
  }
  return found->second.memory.subspan(offset, size);
}

std::span<uint8_t> ChildChannel::Reserve(size_t size_bytes) {
  has_no_room_ = false;
  const auto found = slabs_.find(outputs_);
  if (found != slabs_.end() && found->second.memory.size() >= size_bytes) {
    return found->second.memory;
  }
  const uint32_t before = outputs_;
  if (!Send({.kind = WorkerPacketKind::kGrow, .size = size_bytes})) return {};
  while (outputs_ == before) {
    WorkerPacket packet;
    if (!ReceiveOne(&packet)) return {};
    has_no_room_ = packet.kind == WorkerPacketKind::kNoRoom;
    if (has_no_room_) return {};
  }
  return slabs_[outputs_].memory;
}

bool ChildChannel::SendBody(WorkerPacket packet, std::string_view body, size_t offset) {
  constexpr size_t kAlignment = SlabArena::kAlignment;
  const size_t at = (offset + kAlignment - 1) / kAlignment * kAlignment;
  const std::span<uint8_t> slab = Reserve(std::max<size_t>(at + body.size(), 1));
  if (slab.size() < at + body.size()) return false;
  std::copy(body.begin(), body.end(), slab.begin() + static_cast<ptrdiff_t>(at));
  packet.slab = outputs_;
  packet.offset = at;
  packet.size = body.size();
  return Send(packet);
}

}  // namespace penstock
