#include "worker/session.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/strcat.h"
#include "memory/host_pool.h"
#include "tensor/bytes_elements.h"

namespace penstock {
namespace {

constexpr size_t kMaxBodyBytes = 64 << 20;

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

Result<std::shared_ptr<WorkerSession>> WorkerSession::Start(const WorkerLaunch& launch) {
  PENSTOCK_ASSIGN_OR_RETURN(auto process, WorkerProcess::Spawn(launch));
  // Not make_shared: the constructor is private.
  std::shared_ptr<WorkerSession> session(new WorkerSession(std::move(process)));
  // UNAVAILABLE: it has ended already, and whoever watches it will see how.
  const Status grown = session->Grow(kFirstOutputSlabBytes);
  if (!grown.ok() && grown.code() != StatusCode::kUnavailable) return grown;
  return session;
}

void WorkerSession::Kill(const std::string& how) {
  MutexLock lock(mu_);
  if (has_ended_ || !killed_how_.empty()) return;
  killed_how_ = how;
  process_->Kill();
}

std::optional<std::string> WorkerSession::End() {
  MutexLock lock(mu_);
  std::optional<std::string> how = process_->ReapIfEnded();
  if (!how) return std::nullopt;
  has_ended_ = true;
  return killed_how_.empty() ? how : killed_how_;
}

Status WorkerSession::SendWithBody(WorkerPacketKind kind, std::string_view body) {
  PENSTOCK_ASSIGN_OR_RETURN(auto slab, Slab::Create(body.size()));
  std::memcpy(slab->data(), body.data(), body.size());
  PENSTOCK_RETURN_IF_ERROR(Map(slab));
  return process_->Send({.kind = kind, .slab = slab->id(), .size = body.size()}) ? Status::Ok()
                                                                                 : Closed();
}

Status WorkerSession::Map(const std::shared_ptr<Slab>& slab) {
  MutexLock lock(mu_);
  return mapped_.contains(slab->id()) ? Status::Ok() : MapLocked(slab, /*is_for_outputs=*/false);
}

Status WorkerSession::MapLocked(const std::shared_ptr<Slab>& slab, bool is_for_outputs) {
  if (!UnmapUnused()) return Closed();
  const WorkerPacket packet{.kind = WorkerPacketKind::kMap,
                            .slab = slab->id(),
                            .value = is_for_outputs ? 1U : 0U,
                            .size = slab->size()};
  if (!process_->Send(packet, slab->fd())) return Closed();
  mapped_[slab->id()] = slab;
  return Status::Ok();
}

// A slab that is gone here lives on in the worker until it is told. False: it takes nothing.
bool WorkerSession::UnmapUnused() {
  for (auto each = mapped_.begin(); each != mapped_.end();) {
    const bool is_gone = each->second.expired();
    if (is_gone && !process_->Send({.kind = WorkerPacketKind::kUnmap, .slab = each->first})) {
      return false;
    }
    each = is_gone ? mapped_.erase(each) : std::next(each);
  }
  return true;
}

Result<uint32_t> WorkerSession::PrepareOutputs() {
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

Status WorkerSession::Grow(uint64_t size_bytes) {
  if (size_bytes > kMaxOutputBytes) {
    return InvalidArgument(
        StrCat("outputs of ", size_bytes, " bytes, at most ", kMaxOutputBytes, " are taken"));
  }
  PENSTOCK_ASSIGN_OR_RETURN(auto slab, Slab::Create(std::bit_ceil(size_bytes)));
  MutexLock lock(mu_);
  // What is not handed out is too small now.
  std::erase_if(outputs_, [](const auto& each) { return !each->is_held(); });
  PENSTOCK_RETURN_IF_ERROR(MapLocked(slab, /*is_for_outputs=*/true));
  outputs_.push_back(std::move(slab));
  return Status::Ok();
}

std::shared_ptr<Slab> WorkerSession::FindOutputs(uint32_t id) {
  MutexLock lock(mu_);
  for (const auto& slab : outputs_) {
    if (slab->id() == id) return slab;
  }
  return nullptr;
}

Result<std::vector<uint8_t>> WorkerSession::CopyBody(const WorkerPacket& packet) {
  const auto slab = FindOutputs(packet.slab);
  if (slab == nullptr || packet.offset > slab->size() ||
      packet.size > slab->size() - packet.offset || packet.size > kMaxBodyBytes) {
    return InvalidArgument("a body that lies in no slab");
  }
  const uint8_t* begin = slab->data() + packet.offset;
  return std::vector<uint8_t>(begin, begin + packet.size);
}

Result<std::vector<WorkerAnswer>> WorkerSession::TakeAnswers(const WorkerPacket& packet,
                                                             size_t expected, bool may_hand_out) {
  PENSTOCK_ASSIGN_OR_RETURN(const std::vector<uint8_t> body, CopyBody(packet));
  const auto slab = FindOutputs(packet.slab);
  if (slab == nullptr) return InvalidArgument("a body that lies in no slab");
  PENSTOCK_ASSIGN_OR_RETURN(const auto results, DecodeResults(body, slab->size(), expected));
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

bool WorkerSession::HasRoomForHandOut(const std::shared_ptr<Slab>& slab) {
  MutexLock lock(mu_);
  const auto busy = std::count_if(outputs_.begin(), outputs_.end(), [&](const auto& each) {
    return each != slab && each->is_held();
  });
  return static_cast<size_t>(busy) + 1 < kMaxOutputSlabs;
}

Status WorkerSession::TakeOutput(const std::shared_ptr<Slab>& slab, bool may_hand_out,
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
