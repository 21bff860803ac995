// Admission: may this call come in? One function for both transports and both lanes.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"

namespace penstock {

// What a call is for: inference is counted and bounded, control and health calls are not held up by
// load.
enum class CallGroup { kInference, kControl, kHealth };

struct AdmissionLimits {
  size_t max_inflight_requests = 0;  // accepted and not yet answered; 0 = no bound
  size_t max_request_bytes = 0;      // 0 = no bound
};

// Threading: thread-safe.
class Admission {
 public:
  explicit Admission(AdmissionLimits limits) : limits_(limits) {}

  // Lets a call in or says why not: UNAVAILABLE while shutting down or over the in-flight limit,
  // RESOURCE_EXHAUSTED for a message over the size limit. An admitted inference holds a place until
  // Release.
  Status Admit(CallGroup group, size_t size_bytes);
  void Release();

  // From now on no inference is let in; what is in goes on.
  void StopAccepting();
  // Waits until nothing is in flight. False: not by `deadline_ns`.
  // Blocking: yes.
  bool WaitIdle(Clock& clock, int64_t deadline_ns);

  size_t inflight() const { return inflight_.load(std::memory_order_relaxed); }
  uint64_t admitted() const { return admitted_.load(std::memory_order_relaxed); }
  uint64_t refused_busy() const { return refused_busy_.load(std::memory_order_relaxed); }
  uint64_t refused_draining() const { return refused_draining_.load(std::memory_order_relaxed); }
  uint64_t refused_size() const { return refused_size_.load(std::memory_order_relaxed); }

 private:
  // Constant after construction.
  const AdmissionLimits limits_;

  // Own synchronisation.
  std::atomic<size_t> inflight_{0};
  std::atomic<bool> is_accepting_{true};
  std::atomic<uint64_t> admitted_{0};
  std::atomic<uint64_t> refused_busy_{0};
  std::atomic<uint64_t> refused_draining_{0};
  std::atomic<uint64_t> refused_size_{0};
  std::atomic<size_t> waiters_{0};  // threads in WaitIdle

  Mutex mu_;
  CondVar idle_;  // with mu_: inflight_ may have become 0
};

}  // namespace penstock
