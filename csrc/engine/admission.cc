#include "engine/admission.h"

#include "base/strcat.h"

namespace penstock {

Status Admission::Admit(CallGroup group, size_t size_bytes) {
  if (limits_.max_request_bytes != 0 && size_bytes > limits_.max_request_bytes) {
    refused_size_.fetch_add(1, std::memory_order_relaxed);
    return ResourceExhausted(StrCat("request of ", size_bytes, " bytes exceeds the limit of ",
                                    limits_.max_request_bytes, " bytes"));
  }
  if (group != CallGroup::kInference) return Status::Ok();
  // Counted first, so that WaitIdle after StopAccepting cannot miss a call that is coming in.
  const size_t before = inflight_.fetch_add(1);
  if (!is_accepting_.load()) {
    Release();
    refused_draining_.fetch_add(1, std::memory_order_relaxed);
    return Unavailable("GRPC server is shutting down and has stopped accepting new requests.");
  }
  if (limits_.max_inflight_requests != 0 && before >= limits_.max_inflight_requests) {
    Release();
    refused_busy_.fetch_add(1, std::memory_order_relaxed);
    return Unavailable(StrCat("the server is busy: ", limits_.max_inflight_requests,
                              " requests are in flight, which is its limit"));
  }
  admitted_.fetch_add(1, std::memory_order_relaxed);
  return Status::Ok();
}

void Admission::Release() {
  if (inflight_.fetch_sub(1) != 1 || waiters_.load() == 0) return;
  MutexLock lock(mu_);
  idle_.NotifyAll();
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
