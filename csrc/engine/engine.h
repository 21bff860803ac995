// Engine: the facade of the core. Models by name, admission, and the way of a request from its
// bytes to its version's queue.

#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backends/device_worker/device_workers.h"
#include "backends/registry.h"
#include "base/clock.h"
#include "base/event_fd.h"
#include "base/mutex.h"
#include "base/status.h"
#include "batcher/completion_queue.h"
#include "engine/admission.h"
#include "engine/deadline_timer.h"
#include "engine/infer_request.h"
#include "engine/model_version.h"
#include "memory/shared_memory.h"

namespace penstock {

// Threading: thread-safe.
// Ownership: owns the backends, the timer and, shared with the control plane, every started version
// until it has been drained. Borrows the clock.
// Lifecycle: load and create versions, Start them, SetServing, Infer..., Shutdown. Outlives all
// requests.
// Blocking: LoadModel and CreateVersion read and compile models; Shutdown joins threads. Infer
// never blocks.
class Engine {
 public:
  struct Options {
    std::vector<std::string> backend_directories;
    AdmissionLimits limits;
    AccessPolicy access = {};
    bool allow_client_shm = false;  // clients may register shared memory, of a GPU as well
    std::shared_ptr<DeviceRegions> devices = nullptr;  // null: those that CUDA finds
    size_t max_waiting_requests = 256;                 // for one model to be loaded on demand
    Clock* clock = &Clock::System();
  };

  explicit Engine(Options options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  BackendRegistry& backends() { return backends_; }
  Admission& admission() { return admission_; }
  SharedMemory& shared_memory() { return shared_memory_; }
  Clock& clock() { return clock_; }

  // In this process, or in the workers of `options.devices`. `engine`: is told what runs it
  // (Backend::description).
  Result<std::shared_ptr<BackendModel>> LoadModel(const std::string& backend,
                                                  const LoadOptions& options,
                                                  std::string* engine = nullptr);
  Result<std::shared_ptr<ModelVersion>> CreateVersion(std::shared_ptr<BackendModel> model,
                                                      VersionSpec spec);
  // Starts the version's instances; from here on the engine sees to its drain.
  void Start(const std::shared_ptr<ModelVersion>& version);

  // Replaces what answers for `model_name`, in one step. The greatest version is the default;
  // `unready` versions are known but not available. Draining what was taken out is the caller's.
  // `loads_on_demand`: while there are no versions, requests wait for some, in order: the first one
  // is a demand (TakeDemands), and SetServing with versions, or EndWait, the answer to it.
  void SetServing(const std::string& model_name,
                  std::vector<std::shared_ptr<ModelVersion>> versions, std::vector<int64_t> unready,
                  bool loads_on_demand = false);
  // Models that requests have begun to wait for; demand_fd() is readable while there are some.
  std::vector<std::string> TakeDemands();
  int demand_fd() const { return demand_event_.fd(); }
  // The model will not be loaded for now: all that waits for it ends with `why`.
  void EndWait(const std::string& model_name, const Status& why);
  // Nobody waited for the model, and its load was given up: whoever has come since is a new demand.
  void GiveUpLoad(const std::string& model_name);
  // A load of the model would bring these versions. Until that is answered (SetServing with
  // versions, EndWait, GiveUpLoad) requests for others end as they would with the model loaded.
  void SetLoadable(const std::string& model_name, std::vector<int64_t> versions);
  // How many requests wait for the model.
  size_t waiting(const std::string& model_name) const;
  // How long those have waited whose wait ended by a load, or by its failure.
  Histogram wait_us() const;
  void Forget(const std::string& model_name);
  // Drains `version`, see ModelVersion::Drain.
  bool Drain(const std::shared_ptr<ModelVersion>& version, int64_t timeout_ns);

  struct InferOptions {
    const Caller* caller = nullptr;  // null: sent nothing that tells who it is
    Wake wake = Wake::kNow;  // kLater: the caller flushes request->version when its turn is over
    bool is_background = false;  // the server's own batch work: Request::is_job
  };
  // Parses, admits and queues `request` (an InferRequest whose message, completions, tag,
  // is_stream, deadline_ns are set). Its parameters too may make it a background request. Every
  // failure is an outcome in its completion queue.
  void Infer(const RequestRef& request, const InferOptions& options);
  void Infer(const RequestRef& request) { Infer(request, InferOptions()); }
  // `request` came from its completion queue with `retries`: its model was loaded meanwhile. Its
  // submitter looks at is_decoupled anew, and flushes request->version.
  void Retry(const RequestRef& request);
  // A queue for outcomes that lives as long as the engine: an instance tells it of a batch's end
  // after its consumer may have taken the last outcome, and gone.
  std::shared_ptr<CompletionQueue> MakeCompletionQueue();
  // The caller of `request` has gone.
  void Cancel(const RequestRef& request);
  // The consumer has taken `request` from its completion queue: counts it and frees its place.
  void Release(InferRequest& request);

  // Admitted requests taken from completion queues, by code: their sum and what is in flight make
  // up Admission::admitted().
  std::map<StatusCode, uint64_t> completed() const;

  // Fails what is queued, joins every thread. False: an instance did not end within `timeout_ns`;
  // the process should then end without waiting for it. Idempotent.
  bool Shutdown(int64_t timeout_ns);

 private:
  struct Model {
    std::vector<std::shared_ptr<ModelVersion>> versions;  // ascending
    std::vector<int64_t> unready;
    bool loads_on_demand = false;
    std::shared_ptr<Batcher> waiting;              // null: no request waits. It has no instances
    std::optional<std::vector<int64_t>> loadable;  // while a load is under way that brings these
  };

  std::shared_ptr<Batcher> MakeWaiting();
  Status WaitForLoad(const RequestRef& request, const Status& otherwise);
  Status JoinWaiting(Model& model, const RequestRef& request, const std::string& name)
      REQUIRES(mu_);
  std::shared_ptr<Batcher> EndLoad(const std::string& model_name);
  void LetGo(const std::shared_ptr<Batcher>& waiting, const Status& why);
  Status Admit(InferRequest* request, const Caller* caller);
  Status ParseAndSubmit(const RequestRef& request, Wake wake);
  Status Submit(const RequestRef& request, Wake wake);
  Result<std::shared_ptr<ModelVersion>> FindVersion(const InferRequestView& view) const;

  // Constant after construction.
  Clock& clock_;
  const size_t max_waiting_;

  // Own synchronisation.
  const EventFd demand_event_;
  BackendRegistry backends_;
  DeviceWorkers device_workers_;
  Admission admission_;
  SharedMemory shared_memory_;
  std::array<std::atomic<uint64_t>, 17> completed_{};

  mutable Mutex mu_;
  // Guarded by mu_.
  std::unordered_map<std::string, Model> models_ GUARDED_BY(mu_);
  std::vector<std::shared_ptr<ModelVersion>> started_ GUARDED_BY(mu_);  // and not yet drained
  std::vector<std::shared_ptr<CompletionQueue>> queues_ GUARDED_BY(mu_);
  std::vector<std::string> demands_ GUARDED_BY(mu_);
  Histogram wait_us_ GUARDED_BY(mu_);

  DeadlineTimer timer_;  // last: its thread may call into what is above
};

}  // namespace penstock
