// Instance: one thread's worth of a version. It pulls a batch when idle, runs it on its backend
// instance and delivers the outcomes. Where the computation takes place (this process or a worker)
// is the backend instance's affair.

#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "batcher/batcher.h"
#include "engine/batch_io.h"
#include "engine/kept_requests.h"
#include "engine/request_batch.h"
#include "engine/statistics.h"
#include "engine/version_spec.h"

namespace penstock {

// Threading: confined to its creator until Start, then to its thread "ps-<model>", but for
// TryRunHere, which is thread-safe.
// Ownership: owns the backend instance; borrows spec, batcher, statistics, clock, which outlive it.
// Lifecycle: WarmUp* -> Start -> [the batcher closes, or dismisses it] -> Join -> Close.
// Blocking: Join waits for the running batch and for the batcher to let it go. TryRunHere
// computes, but only what has been quick lately: quicker than handing it to the instance's thread.
class Instance {
 public:
  struct Environment {
    const VersionSpec& spec;
    Batcher& batcher;
    StatisticsRecorder& statistics;
    KeptRequests& kept;
    Clock& clock;
  };

  Instance(std::string name, std::unique_ptr<BackendInstance> backend, Environment environment);

  // Whether the backend answers requests one by one: each of them then has a ResponseChannel.
  bool answers_requests() const { return answers_requests_; }

  // Runs `request` on the calling thread, and delivers nothing.
  // Blocking: for the length of the computation, and for responses that come behind it until
  // kWarmUpNs have passed.
  Status WarmUp(const RequestRef& request);
  // `on_exit` is called on the thread as its last act.
  void Start(std::function<void()> on_exit);
  void Join() { thread_.Join(); }
  // Whether the thread has run its last batch; set before `on_exit` is called.
  bool has_ended() const { return has_ended_.load(); }
  // As what it keeps requests that go on behind their batches (KeptRequests).
  const void* keeper() const { return &answers_; }
  // Frees the backend instance. REQUIRES: joined, or never started.
  void Close();
  // Whether the backend says so. Thread-safe, never blocks.
  bool is_available() const;

  // Whether a batch runs. Thread-safe, never blocks.
  bool is_busy() const { return is_busy_.load(std::memory_order_relaxed); }
  // How often what runs its batches was started again: see BackendInstance::restarts.
  uint64_t restarts() const;

  // Runs the next batch on the calling thread, if the instance is idle, its backend allows it, its
  // batches are quick and the batching policy says now; background requests are left to the
  // instance's thread. False: nothing was run.
  bool TryRunHere() noexcept;

 private:
  // Twice what it costs to wake the instance's thread and to be woken by it: meanwhile the submitter
  // has nothing to do that would not be in the next batch. Measured with the openvino backend, whose
  // batches take 20 to 40 us: 1.4 times the requests that a limit of 40 us gives (bench/README.md).
  static constexpr int64_t kQuickRunNs = 80'000;

  static constexpr int64_t kWarmUpNs = int64_t{60} * 1'000'000'000;

  // Runs `batch` and leaves each request its outputs and, in `outcomes`, its outcome, unless it is
  // kept (answers_.was_kept()). An exception of the backend is an INTERNAL status: a buggy model
  // fails its batch, not the server.
  void Execute(const Batch& batch, BatchTimes* times, std::vector<Status>* outcomes) noexcept;
  Status ExecuteOrThrow(const Batch& batch, BatchTimes* times, std::span<Status> outcomes);
  Status AnswerOrThrow(const Batch& batch, BatchTimes* times, std::span<Status> outcomes);
  uint32_t TakeKeptOut(Batch* batch, std::vector<Status>* outcomes) const;
  void LogFailure(const Batch& batch, std::string_view text) const;
  void Run() noexcept;
  void RunBatch(Batch* batch, std::vector<Status>* outcomes) REQUIRES(run_mu_);
  void LearnRunTime(const Batch& batch, int64_t run_ns);

  // Constant after construction.
  const std::string name_;
  const Environment environment_;
  const bool may_run_here_;
  const bool answers_requests_;
  const BackendInstance& asked_;  // backend_, until it is closed

  // Own synchronisation.
  std::atomic<int64_t> run_ns_{kNever};  // moving average of a batch's time; kNever = not known
  std::atomic<bool> is_busy_{false};
  std::atomic<bool> has_ended_{false};

  mutable Mutex close_mu_;  // for whoever asks about the backend without run_mu_; a leaf
  bool is_closed_ GUARDED_BY(close_mu_) = false;

  Mutex run_mu_;  // held while a batch runs, by whichever thread
  // Guarded by run_mu_ once started; the creator's alone before (warm-up).
  std::unique_ptr<BackendInstance> backend_;
  BatchIo io_;
  RequestBatch answers_;
  Batch batch_here_ GUARDED_BY(run_mu_);  // TryRunHere's, kept for its capacity
  std::vector<Status> outcomes_here_ GUARDED_BY(run_mu_);

  Thread thread_;  // last: it uses everything above
};

}  // namespace penstock
