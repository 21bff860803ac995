#include "backends/python/stream_batch.h"

#include <algorithm>
#include <utility>

#include "base/strcat.h"

namespace penstock::python {

void WorkerLink::Tell(WorkerPacketKind kind, uint64_t batch, uint32_t request, uint32_t value) {
  MutexLock lock(mu_);
  if (worker_ != nullptr) worker_->Tell(kind, batch, request, value);
}

void WorkerLink::Drop() {
  MutexLock lock(mu_);
  worker_ = nullptr;
}

StreamBatch::StreamBatch(std::string label, std::shared_ptr<WorkerLink> link,
                         std::span<const BatchRequest> requests)
    : label_(std::move(label)),
      link_(std::move(link)),
      count_(static_cast<uint32_t>(requests.size())) {
  for (const BatchRequest& request : requests) streams_.push_back({.sender = request.responses});
}

uint32_t StreamBatch::FirstRoom(uint32_t request) {
  MutexLock lock(mu_);
  Stream& stream = streams_[request];
  stream.credit = std::min(stream.sender->room(), kMaxCredit);
  return static_cast<uint32_t>(stream.credit);
}

void StreamBatch::OnSent() {
  for (uint32_t i = 0; i < count_; ++i) {
    std::shared_ptr<ResponseSender> sender;
    {
      MutexLock lock(mu_);
      if (streams_[i].is_finished) continue;
      sender = streams_[i].sender;
    }
    sender->NotifyCancelled([weak = weak_from_this(), i] {
      if (const auto self = weak.lock()) self->Cancel(i);
    });
    Refill(i);
  }
}

void StreamBatch::OnResponse(uint32_t request, WorkerAnswer answer, bool is_last) {
  std::shared_ptr<ResponseSender> sender;
  {
    MutexLock lock(mu_);
    if (streams_[request].is_finished) return;
    sender = streams_[request].sender;
  }
  if (answer.code != StatusCode::kOk) return Finish(request, {answer.code, answer.text});
  if (!TakeCredit(request)) {
    Cancel(request);
    return Finish(request, Internal(StrCat(label_, " sent more responses than there is room for")));
  }
  std::vector<BatchOutput> outputs;
  for (auto& output : answer.outputs) {
    outputs.push_back({output.index, output.dtype, output.shape, std::move(output.data)});
  }
  const Status sent =
      is_last ? sender->SendLast(std::move(outputs)) : sender->Send(std::move(outputs));
  if (!sent.ok()) {
    Cancel(request);
  } else if (!is_last) {
    Refill(request);
  }
}

void StreamBatch::OnLast(uint32_t request) { Finish(request, Status::Ok()); }

void StreamBatch::OnEnd(const Status& status) {
  for (uint32_t i = 0; i < count_; ++i) Finish(i, status);
}

// Where execute sends by itself it waits for a client that reads slowly, and all others for it.
bool StreamBatch::Look(const StreamsLook& look) {
  std::vector<uint32_t> late;
  bool is_stalled = false;
  bool may_send = false;
  {
    MutexLock lock(mu_);
    for (uint32_t i = 0; i < count_; ++i) {
      Stream& stream = streams_[i];
      if (stream.is_finished) continue;
      const bool waits = stream.credit == 0 && !stream.is_cancelled;
      may_send |= !waits;
      if (!waits || !look.is_executing) {
        stream.stalled_ns = 0;
        continue;
      }
      is_stalled = true;
      if (stream.stalled_ns == 0) stream.stalled_ns = look.now_ns;
      if (look.limit_ns > 0 && look.now_ns - stream.stalled_ns >= look.limit_ns) late.push_back(i);
    }
  }
  for (const uint32_t request : late) GiveUp(request, look.limit_ns);
  return look.is_executing ? !is_stalled : may_send;
}

void StreamBatch::GiveUp(uint32_t request, int64_t limit_ns) {
  Cancel(request);
  Finish(request, Cancelled(StrCat(
                      label_, " waits in execute for the client to take a response: longer than ",
                      limit_ns / 1'000'000, " ms, its execution limit")));
}

bool StreamBatch::TakeCredit(uint32_t request) {
  MutexLock lock(mu_);
  if (streams_[request].credit == 0) return false;
  streams_[request].credit -= 1;
  return true;
}

// Gives credit once half of it is used, so that not every response costs a packet.
void StreamBatch::Refill(uint32_t request) {
  std::shared_ptr<ResponseSender> sender;
  {
    MutexLock lock(mu_);
    const Stream& stream = streams_[request];
    if (stream.is_finished || stream.is_cancelled) return;
    sender = stream.sender;
  }
  const size_t room = std::min(sender->room(), kMaxCredit);
  size_t given = 0;
  bool is_to_wait = false;
  {
    MutexLock lock(mu_);
    Stream& stream = streams_[request];
    if (stream.credit <= room / 2 && room > stream.credit) {
      given = room - stream.credit;
      stream.credit = room;
      stream.stalled_ns = 0;
    }
    is_to_wait = stream.credit == 0 && !stream.awaits_room;
    stream.awaits_room |= is_to_wait;
  }
  if (given > 0) {
    link_->Tell(WorkerPacketKind::kCredit, id_, request, static_cast<uint32_t>(given));
  }
  if (!is_to_wait) return;
  sender->NotifyRoom([weak = weak_from_this(), request] {
    if (const auto self = weak.lock()) self->OnRoom(request);
  });
}

void StreamBatch::OnRoom(uint32_t request) {
  std::shared_ptr<ResponseSender> sender;
  {
    MutexLock lock(mu_);
    streams_[request].awaits_room = false;
    if (streams_[request].is_finished) return;
    sender = streams_[request].sender;
  }
  if (sender->is_cancelled()) {
    Cancel(request);
  } else {
    Refill(request);
  }
}

void StreamBatch::Cancel(uint32_t request) {
  {
    MutexLock lock(mu_);
    Stream& stream = streams_[request];
    if (stream.is_cancelled || stream.is_finished) return;
    stream.is_cancelled = true;
  }
  link_->Tell(WorkerPacketKind::kCancel, id_, request, 0);
}

void StreamBatch::Finish(uint32_t request, const Status& status) {
  std::shared_ptr<ResponseSender> sender;
  {
    MutexLock lock(mu_);
    Stream& stream = streams_[request];
    if (stream.is_finished) return;
    stream.is_finished = true;
    sender = std::move(stream.sender);
  }
  sender->Finish(status);
}

}  // namespace penstock::python
