// Admission: may this call come in? One function for both transports and both lanes.

#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "engine/access.h"
#include "engine/call_group.h"

namespace penstock {

struct AdmissionLimits {
  size_t max_inflight_requests = 0;  // accepted and not yet answered; 0 = no bound
  size_t max_request_bytes = 0;      // 0 = no bound
  size_t max_background_bytes = 0;   // of requests that clients lowered, together; 0 = no bound

  // Of the places in flight those that such requests may have: they wait for as long as others are
  // served, and would take the last place from those. None of a single one. kNoBound = no bound.
  static constexpr size_t kNoBound = SIZE_MAX;
  size_t max_background_requests() const {
    return max_inflight_requests == 0 ? kNoBound : max_inflight_requests / 2;
  }
};

// Threading: thread-safe.
// Ownership: borrows the clock.
class Admission {
 public:
  explicit Admission(AdmissionLimits limits, AccessPolicy policy = {},
                     Clock& clock = Clock::System())
      : limits_(limits), access_(std::move(policy), clock) {}

  AccessControl& access() { return access_; }

  // Lets a message of a call in or says why not, and whose it is: what AccessControl says (a null
  // caller sent nothing), RESOURCE_EXHAUSTED for a message over a size limit or a call over a rate, UNAVAILABLE
  // while shutting down or over the in-flight limit. An admitted inference holds a place until
  // Release; the in-flight limit and the shutdown are for inference alone, so that load holds up no
  // question of health.
  Status Admit(const Caller* caller, CallGroup group, size_t size_bytes, PrincipalRef* who);
  Status Admit(const Caller* caller, CallGroup group, size_t size_bytes) {
    PrincipalRef who;
    return Admit(caller, group, size_bytes, &who);
  }
  void Release();

  // For an admitted request that turns out to be one that its client lowered: whether it may stay,
  // or UNAVAILABLE because such requests have their share. One that stays holds its part of it until
  // ReleaseBackground. `size_bytes`: of its message, and of what was decoded. Of any size it may stay
  // where there is no other.
  Status TakeBackgroundPlace(size_t size_bytes);
  void ReleaseBackground(size_t size_bytes);

  // Whether the caller may call the group, before there is a message: for streams at their start.
  Status Authorize(const Caller* caller, CallGroup group);

  // Before each verification of a token that the core does not know: see
  // AccessControl::RefuseVerification.
  Status AdmitVerification(const Caller& caller);

  // For what is found out only once a call is in.
  void CountRefusal(Refusal reason) {
    refused_[static_cast<size_t>(reason)].fetch_add(1, std::memory_order_relaxed);
  }

  // From now on no inference is let in; what is in goes on.
  void StopAccepting();
  // Waits until nothing is in flight. False: not by `deadline_ns`.
  // Blocking: yes.
  bool WaitIdle(Clock& clock, int64_t deadline_ns);

  size_t inflight() const { return inflight_.load(std::memory_order_relaxed); }
  uint64_t admitted() const { return admitted_.load(std::memory_order_relaxed); }
  uint64_t refused(Refusal reason) const {
    return refused_[static_cast<size_t>(reason)].load(std::memory_order_relaxed);
  }

 private:
  Status Refuse(Refusal reason, Status status);
  Status CheckSize(size_t size_bytes, const Principal* who);
  Status TakePlace();

  // Constant after construction.
  const AdmissionLimits limits_;

  // Own synchronisation.
  AccessControl access_;
  std::atomic<size_t> inflight_{0};
  std::atomic<bool> is_accepting_{true};
  std::atomic<size_t> background_{0};
  std::atomic<size_t> background_bytes_{0};
  std::atomic<uint64_t> admitted_{0};
  std::array<std::atomic<uint64_t>, kRefusalNames.size()> refused_{};
  std::atomic<size_t> waiters_{0};  // threads in WaitIdle

  Mutex mu_;
  CondVar idle_;  // with mu_: inflight_ may have become 0
};

}  // namespace penstock
