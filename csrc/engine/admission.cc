#include "engine/admission.h"

#include <utility>

#include "base/strcat.h"

namespace penstock {

Status Admission::Admit(const Caller* caller, CallGroup group, size_t size_bytes,
                        PrincipalRef* who) {
  // First, so that guessing keys is not free.
  if (auto refused = access_.TakeConnectionRate(caller, group)) {
    return Refuse(refused->reason, std::move(refused->status));
  }
  if (auto refused = access_.Authorize(caller, group, who)) {
    return Refuse(refused->reason, std::move(refused->status));
  }
  PENSTOCK_RETURN_IF_ERROR(CheckSize(size_bytes, who->get()));
  if (auto refused = access_.TakeKeyRate(group, who->get())) {
    return Refuse(refused->reason, std::move(refused->status));
  }
  return group == CallGroup::kInference ? TakePlace() : Status::Ok();
}

Status Admission::Authorize(const Caller* caller, CallGroup group) {
  PrincipalRef who;
  std::optional<Refused> refused = access_.Authorize(caller, group, &who);
  if (!refused.has_value()) return Status::Ok();
  if (auto over = access_.TakeConnectionRate(caller, group)) refused = std::move(over);
  return Refuse(refused->reason, std::move(refused->status));
}

Status Admission::AdmitVerification(const Caller& caller) {
  std::optional<Refused> refused = access_.RefuseVerification(caller);
  return refused.has_value() ? Refuse(refused->reason, std::move(refused->status)) : Status::Ok();
}

Status Admission::Refuse(Refusal reason, Status status) {
  CountRefusal(reason);
  return status;
}

Status Admission::CheckSize(size_t size_bytes, const Principal* who) {
  if (limits_.max_request_bytes != 0 && size_bytes > limits_.max_request_bytes) {
    return Refuse(Refusal::kSize, ResourceExhausted(StrCat("request of ", size_bytes,
                                                           " bytes exceeds the limit of ",
                                                           limits_.max_request_bytes, " bytes")));
  }
  Status own = CheckOwnSize(who, size_bytes, /*shared_bytes=*/0);
  return own.ok() ? own : Refuse(Refusal::kSize, std::move(own));
}

Status Admission::TakePlace() {
  // Counted first, so that WaitIdle after StopAccepting cannot miss a call that is coming in.
  const size_t before = inflight_.fetch_add(1);
  if (!is_accepting_.load()) {
    Release();
    return Refuse(
        Refusal::kDraining,
        Unavailable("GRPC server is shutting down and has stopped accepting new requests."));
  }
  if (limits_.max_inflight_requests != 0 && before >= limits_.max_inflight_requests) {
    Release();
    return Refuse(Refusal::kBusy,
                  Unavailable(StrCat("the server is busy: ", limits_.max_inflight_requests,
                                     " requests are in flight, which is its limit")));
  }
  admitted_.fetch_add(1, std::memory_order_relaxed);
  return Status::Ok();
}

void Admission::Release() {
  if (inflight_.fetch_sub(1) != 1 || waiters_.load() == 0) return;
  MutexLock lock(mu_);
  idle_.NotifyAll();
}

Status Admission::TakeBackgroundPlace(size_t size_bytes) {
  const size_t before = background_.fetch_add(1);
  const size_t bytes = background_bytes_.fetch_add(size_bytes) + size_bytes;
  const size_t most = limits_.max_background_requests();
  const size_t most_bytes = limits_.max_background_bytes;
  const bool has_place = before < most;
  const bool has_room = most_bytes == 0 || bytes <= most_bytes || before == 0;
  if (has_place && has_room) return Status::Ok();
  ReleaseBackground(size_bytes);  // first: there may be no memory for the text
  Status status;
  if (!has_place) {
    status = Unavailable(StrCat("the server is busy: ", most,
                                " background requests are in flight, which is their share"));
  } else {
    status = Unavailable(StrCat("the server is busy: background requests hold ", bytes - size_bytes,
                                " bytes, and this one has ", size_bytes, ": their share is ",
                                most_bytes));
  }
  return Refuse(Refusal::kBusy, std::move(status));
}

void Admission::ReleaseBackground(size_t size_bytes) {
  background_.fetch_sub(1);
  background_bytes_.fetch_sub(size_bytes);
}

void Admission::StopAccepting() { is_accepting_.store(false); }

bool Admission::WaitIdle(Clock& clock, int64_t deadline_ns) {
  MutexLock lock(mu_);
  waiters_.fetch_add(1);
  bool is_idle = inflight_.load() == 0;
  while (!is_idle && clock.NowNs() < deadline_ns) {
    clock.WaitUntil(idle_, mu_, deadline_ns);
    is_idle = inflight_.load() == 0;
  }
  waiters_.fetch_sub(1);
  return is_idle;
}

}  // namespace penstock
