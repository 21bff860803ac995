#include "worker/batch_channel.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

#include "base/clock.h"
#include "base/strcat.h"
#include "memory/host_pool.h"
#include "tensor/bytes_elements.h"

namespace penstock {
namespace {

constexpr size_t kMaxBodyBytes = 64 << 20;
constexpr int kMaxGrowsOfABatch = 64;

Status Closed() { return Unavailable("the worker's connection is closed"); }

void ReleaseSlab(void* context, void*, size_t) noexcept {
  const std::unique_ptr<std::shared_ptr<Slab>> slab(static_cast<std::shared_ptr<Slab>*>(context));
  (*slab)->LetGo();
}

bool AreElements(std::span<const uint8_t> rest, int64_t count) {
  std::span<const uint8_t> element;
  for (int64_t i = 0; i < count; ++i) {
    if (!TakeBytesElement(&rest, &element)) return false;
  }
  return rest.empty();
}

}  // namespace

Status BatchChannel::SendWithBody(WorkerPacket packet, std::string_view body) {
  PENSTOCK_ASSIGN_OR_RETURN(auto slab, Slab::Create(body.size()));
  std::memcpy(slab->data(), body.data(), body.size());
  PENSTOCK_RETURN_IF_ERROR(Map(slab));
  packet.slab = slab->id();
  packet.size = body.size();
  return socket_.Send(packet) ? Status::Ok() : Closed();
}

Status BatchChannel::Map(const std::shared_ptr<Slab>& slab) {
  MutexLock lock(mu_);
  return mapped_.contains(slab->id()) ? Status::Ok() : MapLocked(slab, /*is_for_outputs=*/false);
}

Status BatchChannel::MapLocked(const std::shared_ptr<Slab>& slab, bool is_for_outputs) {
  if (!UnmapUnused()) return Closed();
  const WorkerPacket packet{
      .kind = WorkerPacketKind::kMap,
      .slab = slab->id(),
      .value = (is_for_outputs ? kMapForOutputs : 0U) | (slab->is_lasting() ? 0U : kMapForOneBatch),
      .size = slab->size()};
  std::weak_ptr<Slab>& mapped = mapped_[slab->id()];  // before it is sent: that may throw
  if (!socket_.Send(packet, slab->fd())) return Closed();
  mapped = slab;
  return Status::Ok();
}

// A slab that is gone here lives on in the worker until it is told. False: it takes nothing.
bool BatchChannel::UnmapUnused() {
  for (auto each = mapped_.begin(); each != mapped_.end();) {
    const bool is_gone = each->second.expired();
    if (is_gone && !socket_.Send({.kind = WorkerPacketKind::kUnmap, .slab = each->first})) {
      return false;
    }
    each = is_gone ? mapped_.erase(each) : std::next(each);
  }
  return true;
}

Result<uint32_t> BatchChannel::PrepareOutputs() {
  MutexLock lock(mu_);
  for (auto each = outputs_.begin(); each != outputs_.end();) {
    each = !(*each)->is_held() && (*each)->size() > kGreatestKeptBytes ? outputs_.erase(each)
                                                                       : each + 1;
  }
  for (auto each = outputs_.rbegin(); each != outputs_.rend(); ++each) {
    if (!(*each)->is_held()) return (*each)->id();
  }
  PENSTOCK_ASSIGN_OR_RETURN(auto slab, Slab::Create(kFirstOutputSlabBytes));
  PENSTOCK_RETURN_IF_ERROR(MapLocked(slab, /*is_for_outputs=*/true));
  outputs_.push_back(slab);
  return slab->id();
}

Status BatchChannel::Grow(uint64_t size_bytes) {
  if (size_bytes > kMaxWorkerOutputBytes) {
    return InvalidArgument(
        StrCat("outputs of ", size_bytes, " bytes, at most ", kMaxWorkerOutputBytes, " are taken"));
  }
  const size_t rounded_bytes = std::bit_ceil(size_bytes);
  PENSTOCK_ASSIGN_OR_RETURN(
      auto slab, Slab::Create(rounded_bytes, /*is_lasting=*/rounded_bytes <= kGreatestKeptBytes));
  MutexLock lock(mu_);
  outputs_.reserve(outputs_.size() + 1);  // before it is sent: that may throw
  PENSTOCK_RETURN_IF_ERROR(MapLocked(slab, /*is_for_outputs=*/true));
  // What is not handed out is too small now.
  std::erase_if(outputs_, [](const auto& each) { return !each->is_held(); });
  outputs_.push_back(std::move(slab));
  UnmapUnused();  // what the worker pins of them it lets go; a closed connection shows later
  return Status::Ok();
}

Status BatchChannel::AnswerGrow(uint64_t size_bytes) {
  try {
    Status grown = Grow(size_bytes);
    if (grown.code() != StatusCode::kResourceExhausted) return grown;
  } catch (const std::bad_alloc&) {  // no room either
  }
  return socket_.Send({.kind = WorkerPacketKind::kNoRoom}) ? Status::Ok() : Closed();
}

Status BatchChannel::SendRun(const WorkerBatch& batch, uint64_t id, SlabArena* arena,
                             bool streams) {
  placed_.resize(batch.inputs.size());
  for (size_t i = 0; i < batch.inputs.size(); ++i) {
    const TensorView& tensor = batch.inputs[i].tensor;
    placed_[i] = {.index = batch.inputs[i].index, .dtype = tensor.dtype, .shape = tensor.shape};
    if (tensor.data.empty()) continue;
    PENSTOCK_ASSIGN_OR_RETURN(const SlabPlace place, Place(tensor.data, arena));
    placed_[i].slab = place.slab->id();
    placed_[i].offset = place.offset;
    placed_[i].size = tensor.data.size();
  }
  EncodeRun(placed_, batch.wanted, batch.requests, &body_);
  if (!batch.input_parts.empty() || !batch.output_parts.empty()) {
    PENSTOCK_RETURN_IF_ERROR(PlaceParts(batch, arena));
  }
  PENSTOCK_ASSIGN_OR_RETURN(const auto place, arena->Allocate(body_.size()));
  std::memcpy(place.data(), body_.data(), body_.size());
  const auto body = arena->Find(place);
  if (!Map(body->slab).ok()) return Unavailable("it takes no batch");
  const Result<uint32_t> outputs = streams ? Result<uint32_t>(0U) : PrepareOutputs();
  if (!outputs.ok() && outputs.status().code() == StatusCode::kResourceExhausted) {
    return outputs.status();
  }
  const bool is_sent = outputs.ok() && socket_.Send({.kind = WorkerPacketKind::kRun,
                                                     .slab = body->slab->id(),
                                                     .batch = id,
                                                     .value = *outputs,
                                                     .offset = body->offset,
                                                     .size = body_.size()});
  return is_sent ? Status::Ok() : Unavailable("it takes no batch");
}

Result<SlabPlace> BatchChannel::Place(std::span<const uint8_t> bytes, SlabArena* arena) {
  auto place = arena->Find(bytes);
  if (!place) {  // a lone request's own bytes, handed over
    PENSTOCK_ASSIGN_OR_RETURN(const auto copy, arena->Allocate(bytes.size()));
    std::memcpy(copy.data(), bytes.data(), bytes.size());
    place = arena->Find(copy);
  }
  if (!Map(place->slab).ok()) return Unavailable("it takes no slab");
  return *std::move(place);
}

Status BatchChannel::PlaceParts(const WorkerBatch& batch, SlabArena* arena) {
  placed_parts_.clear();
  for (const WorkerTensorPart& each : batch.input_parts) {
    WorkerInputPart& part = placed_parts_.emplace_back(each.part);
    if (each.host.empty()) continue;
    PENSTOCK_ASSIGN_OR_RETURN(const SlabPlace place, Place(each.host, arena));
    part.slab = place.slab->id();
    part.offset = place.offset;
    part.size = each.host.size();
  }
  EncodeParts(placed_parts_, batch.output_parts, &body_);
  return Status::Ok();
}

Result<std::vector<WorkerAnswer>> BatchChannel::AwaitDone(uint64_t id, size_t expected,
                                                          int64_t limit_ns,
                                                          std::span<const size_t> unread) {
  const int64_t until_ns = limit_ns == 0 ? kNever : Clock::System().NowNs() + limit_ns;
  WorkerPacket packet;
  for (int packets = 0; packets <= kMaxGrowsOfABatch; ++packets) {
    // The socket's own limit is that of one packet.
    if (packets > 0 && !socket_.AwaitPacket(until_ns)) {
      return DeadlineExceeded("the batch took too long");
    }
    switch (socket_.Receive(/*wait=*/true, &packet)) {
      case PacketSocket::Received::kNothing:
        return DeadlineExceeded("the batch took too long");
      case PacketSocket::Received::kClosed:
        return Closed();
      case PacketSocket::Received::kGarbage:
        return InvalidArgument("a packet of another size");
      case PacketSocket::Received::kPacket:
        break;
    }
    if (packet.kind == WorkerPacketKind::kGrow) {
      const Status grown = AnswerGrow(packet.size);
      if (grown.ok()) continue;
      if (grown.code() == StatusCode::kUnavailable) return grown;
      return InvalidArgument(std::string(grown.message()));
    }
    if (packet.kind == WorkerPacketKind::kDone && packet.batch == id) {
      return TakeDone(packet, expected, unread);
    }
    return InvalidArgument(
        StrCat("a packet of kind ", static_cast<uint32_t>(packet.kind), " while it ran a batch"));
  }
  return InvalidArgument("it never stops to want more memory");
}

Result<std::vector<WorkerAnswer>> BatchChannel::TakeDone(const WorkerPacket& packet,
                                                         size_t expected,
                                                         std::span<const size_t> unread) {
  try {
    return TakeAnswers(packet, expected, /*may_hand_out=*/true, unread);
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("out of memory for the outputs of a worker");
  }
}

std::shared_ptr<Slab> BatchChannel::FindOutputs(uint32_t id) {
  MutexLock lock(mu_);
  for (const auto& slab : outputs_) {
    if (slab->id() == id) return slab;
  }
  return nullptr;
}

Result<std::vector<uint8_t>> BatchChannel::CopyBody(const WorkerPacket& packet) {
  const auto slab = FindOutputs(packet.slab);
  if (slab == nullptr || packet.offset > slab->size() ||
      packet.size > slab->size() - packet.offset || packet.size > kMaxBodyBytes) {
    return InvalidArgument("a body that lies in no slab");
  }
  const uint8_t* begin = slab->data() + packet.offset;
  return std::vector<uint8_t>(begin, begin + packet.size);
}

Result<std::vector<WorkerAnswer>> BatchChannel::TakeAnswers(const WorkerPacket& packet,
                                                            size_t expected, bool may_hand_out,
                                                            std::span<const size_t> unread) {
  PENSTOCK_ASSIGN_OR_RETURN(const std::vector<uint8_t> body, CopyBody(packet));
  const auto slab = FindOutputs(packet.slab);
  if (slab == nullptr) return InvalidArgument("a body that lies in no slab");
  PENSTOCK_ASSIGN_OR_RETURN(const auto results,
                            DecodeResults(body, slab->size(), expected, unread));
  may_hand_out = may_hand_out && HasRoomForHandOut(slab);
  std::vector<WorkerAnswer> answers(results.size());
  for (size_t i = 0; i < results.size(); ++i) {
    answers[i].code = results[i].code;
    answers[i].text = results[i].text;
    for (const WorkerOutput& output : results[i].outputs) {
      PENSTOCK_RETURN_IF_ERROR(
          TakeOutput(slab, may_hand_out, output, &answers[i].outputs.emplace_back()));
    }
  }
  return answers;
}

bool BatchChannel::HasRoomForHandOut(const std::shared_ptr<Slab>& slab) {
  MutexLock lock(mu_);
  const auto busy = std::count_if(outputs_.begin(), outputs_.end(), [&](const auto& each) {
    return each != slab && each->is_held();
  });
  return static_cast<size_t>(busy) + 1 < kMaxOutputSlabs;
}

Status BatchChannel::TakeOutput(const std::shared_ptr<Slab>& slab, bool may_hand_out,
                                const WorkerOutput& output, WorkerAnswer::Output* taken) {
  taken->index = output.index;
  taken->dtype = output.dtype;
  taken->shape = output.shape;
  if (output.size == 0) return Status::Ok();
  uint8_t* data = slab->data() + output.offset;
  const bool is_fixed = output.dtype != DataType::kBytes;
  if (is_fixed && may_hand_out && output.size >= kHandOutBytes) {
    slab->Hold();
    taken->data = Buffer(data, output.size, output.size, &ReleaseSlab,
                         new std::shared_ptr<Slab>(slab));  // NOLINT: released by the buffer
    return Status::Ok();
  }
  taken->data = HostPool::Shared().Allocate(output.size);
  std::memcpy(taken->data.data(), data, output.size);
  // Checked in the copy: the worker may be writing still.
  if (!is_fixed && !AreElements(taken->data.span(), *output.shape.NumElements())) {
    return InvalidArgument(StrCat("output ", output.index, " whose BYTES do not fit its shape ",
                                  output.shape.ToString()));
  }
  return Status::Ok();
}

}  // namespace penstock
