// ModelVersion: one version of a model being served: its queue, its instances, its statistics.

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/backend.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "batcher/batcher.h"
#include "engine/deadline_timer.h"
#include "engine/infer_request.h"
#include "engine/instance.h"
#include "engine/kept_requests.h"
#include "engine/statistics.h"
#include "engine/version_spec.h"
#include "memory/shared_memory.h"

namespace penstock {

// How many instances a version has, how many are there to run a batch, and how many run one.
struct InstanceCounts {
  size_t total = 0;
  size_t available = 0;
  size_t busy = 0;        // also with a request that goes on behind its batch
  uint64_t restarts = 0;  // of their workers, all together
};

// Threading: thread-safe; WarmUp, Start and the end of Drain wait for each other. The first instance
// lives as long as the version, so that the way of a request looks at no lock to find it; others
// come and go.
// Ownership: shared by the engine's table, the control plane and every request that reached it.
// Owns its instances and (shared with other versions made of the same file) the loaded model;
// borrows clock, timer and shared memory.
// Lifecycle: Create -> WarmUp* -> Start -> (AddInstance | RemoveInstance)* -> Drain. Dropped without
// Start it has no thread. Once started it must be drained before its last reference goes (the engine
// sees to it): an instance's thread cannot join itself.
// Blocking: WarmUp for the length of a batch per instance; Drain and RemoveInstance up to their
// time-outs; AddInstance while the backend makes an instance and warms it up, which holds up nobody.
class ModelVersion {
 public:
  struct Environment {
    Clock& clock;
    DeadlineTimer& timer;
    const SharedMemory& shared_memory;
  };

  // Checks `spec` against the model's signature and makes the instances.
  static Result<std::shared_ptr<ModelVersion>> Create(std::shared_ptr<BackendModel> model,
                                                      VersionSpec spec, Environment environment);
  ~ModelVersion();
  ModelVersion(const ModelVersion&) = delete;
  ModelVersion& operator=(const ModelVersion&) = delete;

  // Runs one ModelInferRequest on every instance. FAILED_PRECONDITION once started or drained.
  Status WarmUp(std::span<const uint8_t> message);
  // Does nothing where the version was started or drained before.
  void Start();

  // Makes one more instance, runs each of `warm_ups` (ModelInferRequests) on it, and only then has
  // it take batches. FAILED_PRECONDITION: not started, or drained, also meanwhile.
  Status AddInstance(std::span<const std::string_view> warm_ups);
  // Takes out the instance that came last: it ends the batch that it runs and what it keeps, takes
  // no other, and is freed, on this thread. False: not done after `timeout_ns`; the next call or
  // Drain frees it. FAILED_PRECONDITION: it is the only one, or the version was not started.
  Result<bool> RemoveInstance(int64_t timeout_ns);

  // Checks `request` against the specification and queues it. FAILED_PRECONDITION: being drained,
  // see Batcher::Enqueue; any other failure is the request's outcome.
  Status Submit(const RequestRef& request, Wake wake);
  void Flush() { batcher_->Flush(); }
  // Runs the next batch on the calling thread where that is cheaper than waking an instance, see
  // Instance::TryRunHere. Never while a request waits or runs whose tensors lie in shared memory:
  // those bytes are copied when the batch is, and how long that takes is up to the client.
  bool TryRunHere() { return shared_memory_requests_.load() == 0 && first_->TryRunHere(); }
  void AddSharedMemoryRequest() { shared_memory_requests_.fetch_add(1); }
  void RemoveSharedMemoryRequest() { shared_memory_requests_.fetch_sub(1); }
  void Cancel(Request& request) { batcher_->Cancel(request); }
  // Completes a request that went on behind its batch, whose times are given.
  void FinishKept(InferRequest& request, BatchTimes times, const Status& outcome);

  // Takes nothing new, lets the instances finish what is queued and running, joins them and frees
  // the model. False: not done after `timeout_ns`; what was queued has been failed UNAVAILABLE, and
  // a later Drain may find the rest ended. Requests that go on behind their batches are waited for,
  // and failed UNAVAILABLE in the end. Idempotent.
  bool Drain(int64_t timeout_ns);

  // Whether an instance is there to run a batch: see BackendInstance::is_available.
  // Blocking: never.
  bool is_available() const;
  InstanceCounts instance_counts() const;
  const VersionSpec& spec() const { return *spec_; }
  const std::string& version_text() const { return version_text_; }
  // What the version was loaded from, for responses that are to say so; empty = not known.
  const std::string& digest() const { return digest_; }
  // REQUIRES: it serves nothing yet. Who makes it serve publishes the value with it.
  void SetDigest(std::string digest) { digest_ = std::move(digest); }
  // Of its backend's model, see there.
  // Blocking: never.
  const std::string& runs_on() const { return runs_on_; }
  // Empty once it has been drained.
  std::vector<DeviceUse> device_use() const EXCLUDES(told_mu_);
  VersionStatistics statistics() const { return statistics_.Snapshot(); }
  BatcherCounters counters() const { return batcher_->counters(); }

 private:
  ModelVersion(std::shared_ptr<BackendModel> model, VersionSpec spec, Environment environment);

  Status MakeInstances();
  Result<std::unique_ptr<Instance>> MakeInstance(BackendModel& model, uint32_t number);
  Status WarmUpInstance(Instance& instance, std::span<const uint8_t> message) const;
  void StartInstance(Instance& instance) REQUIRES(control_mu_);
  std::vector<Instance*> Instances() const EXCLUDES(instances_mu_);
  bool FreeLeaving(int64_t deadline_ns) EXCLUDES(instances_mu_, mu_);
  bool WaitForEnd(const Instance& instance, int64_t deadline_ns) EXCLUDES(mu_);
  std::shared_ptr<ResponseChannel> MakeChannel(bool is_warm_up) const;
  bool WaitForExit(int64_t deadline_ns) EXCLUDES(mu_);

  // Constant once it serves.
  std::string digest_;

  // Constant after construction.
  const std::shared_ptr<const VersionSpec> spec_;
  const std::string version_text_;
  const std::string runs_on_;
  const Environment environment_;

  // Constant after Create.
  Instance* first_ = nullptr;  // of instances_, and never taken out

  // Own synchronisation.
  const std::shared_ptr<Batcher> batcher_;
  StatisticsRecorder statistics_;
  KeptRequests kept_;
  std::atomic<uint64_t> shared_memory_requests_{0};  // that have not been run yet

  // The control calls, one at a time. Before mu_ and every lock of an instance or the batcher.
  Mutex control_mu_;
  enum class Phase { kCreated, kStarted, kDrained };
  Phase phase_ GUARDED_BY(control_mu_) = Phase::kCreated;
  std::shared_ptr<BackendModel> model_ GUARDED_BY(control_mu_);
  uint32_t instances_made_ GUARDED_BY(control_mu_) = 0;

  // A leaf: whoever asks what the model tells of itself waits for no control call, and never holds
  // the model's last reference.
  mutable Mutex told_mu_ ACQUIRED_AFTER(control_mu_);
  const BackendModel* told_by_ GUARDED_BY(told_mu_);  // model_, or null

  // Before the locks of an instance. Held by nobody on the way of a request.
  mutable Mutex instances_mu_ ACQUIRED_AFTER(control_mu_);
  // Guarded by instances_mu_; the instances synchronise themselves.
  std::vector<std::unique_ptr<Instance>> instances_ GUARDED_BY(instances_mu_);
  std::vector<std::unique_ptr<Instance>> leaving_ GUARDED_BY(instances_mu_);  // not freed yet

  Mutex mu_;
  CondVar exited_;
  // Guarded by mu_.
  size_t running_threads_ GUARDED_BY(mu_) = 0;
};

}  // namespace penstock
