// CompletionThread: notices that batches are over, and says so.

#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <string_view>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/thread.h"
#include "gpu/busy_time.h"
#include "gpu/device_health.h"
#include "gpu/gpu_api.h"

namespace penstock::gpu {

// What is enqueued on the device and how its end is known.
struct InFlight {
  // What of it counts as busy.
  struct Computing {
    BusyTime* busy = nullptr;              // where; null = nowhere
    Event begin = nullptr, end = nullptr;  // between these; they decide nothing else
    // Since when, where `begin` is over when it is first asked for; nullopt, as where it is not: since
    // it was found to be.
    std::optional<int64_t> since_ns = std::nullopt;
  };

  std::array<Event, 3> events = {};  // all of them: it is over; null = no event
  Computing computing = {};
  Status status = {};  // what it ends with when it is over; not OK = it failed on its way
  std::string_view what = "a batch";  // for messages; it outlives this
  // Called once, on the completion thread, with `status`, or with the device's fault.
  std::function<void(const Status&)> done = {};
};

struct CompletionOptions {
  int device = 0;
  int64_t spin_ns = 50'000;            // after progress or new work it polls without a pause
  int64_t longest_pause_ns = 500'000;  // then with pauses of a sixteenth of the time since, up to
  int64_t hang_limit_ns = 60'000'000'000;  // a batch that takes longer: the device is faulted
};

// One per device. It asks for the events of what is in flight, in the order of submission, and
// passes over what is not over yet: a short batch of one lane does not wait for another's long one.
// It pauses on a condition variable and never in cudaEventSynchronize, which a kernel that does not
// end would hold for ever: such a device is faulted, and everything in flight answered.
//
// Threading: Watch is thread-safe.
// Ownership: borrows Api, health and clock; events belong to who watches and live until `done`.
// Lifecycle: the destructor waits until all that was watched is done.
// Blocking: Watch never.
class CompletionThread {
 public:
  CompletionThread(Api& api, DeviceHealth& health, Clock& clock, const CompletionOptions& options);
  ~CompletionThread();
  CompletionThread(const CompletionThread&) = delete;
  CompletionThread& operator=(const CompletionThread&) = delete;

  struct Watched {
    InFlight in_flight = {};
    int64_t since_ns = 0;       // Watch was called
    bool is_computing = false;  // `begin` is over
  };
  using Entry = std::list<Watched>;  // of one

  // Everything watched is done exactly once, whatever happens. `done` must not throw.
  void Watch(InFlight in_flight) EXCLUDES(mu_);
  // The same with memory taken before: what is on the device by then must be watched.
  void Watch(Entry entry) noexcept EXCLUDES(mu_);

 private:
  void Loop();
  bool TakeNew() EXCLUDES(mu_);  // waits while there is nothing to poll; false: it is the end
  bool Poll(int64_t now_ns);     // true: some are done
  Error Query(Watched& watched, int64_t now_ns);
  Error CountBusy(Watched& watched, int64_t now_ns);
  void FailAll(const Status& fault);
  // What Poll, begun at `asked_ns`, found not to be over: has it taken too long? True: the device
  // is faulted.
  bool FaultIfHung(int64_t asked_ns);
  void Pause() EXCLUDES(mu_);

  // Constant after construction.
  Api& api_;
  DeviceHealth& health_;
  Clock& clock_;
  const CompletionOptions options_;

  Mutex mu_;
  CondVar changed_;
  // Guarded by mu_.
  std::list<Watched> new_ GUARDED_BY(mu_);
  bool is_ending_ GUARDED_BY(mu_) = false;

  // Only on the completion thread.
  std::list<Watched> watched_;
  int64_t last_progress_ns_ = 0;

  Thread thread_;  // last: it uses the rest
};

}  // namespace penstock::gpu
