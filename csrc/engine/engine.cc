#include "engine/engine.h"

#include <algorithm>
#include <new>
#include <utility>

#include "base/log.h"
#include "base/strcat.h"
#include "base/utf8.h"
#include "engine/bind_request.h"
#include "gpu/driver_api.h"
#include "gpu/ipc_devices.h"

namespace penstock {
namespace {

// A version that is being replaced refuses with FAILED_PRECONDITION, and by then its successor is
// in the table. More rounds than this mean that the model is gone.
constexpr int kMaxSubmitRounds = 8;

// For instances that have had no work yet.
constexpr int64_t kStartDrainNs = int64_t{10} * 1'000'000'000;

// Why a version does not serve that a request asked for; `unready` are those that are known.
Status NoSuchVersion(const InferRequestView& view, int64_t wanted,
                     const std::vector<int64_t>& unready) {
  if (std::find(unready.begin(), unready.end(), wanted) != unready.end()) {
    return Unavailable(
        StrCat("'", view.model_name, "' version ", wanted, " is not at ready state"));
  }
  return NotFound(StrCat("Request for unknown model: '", view.model_name, "' version ", wanted,
                         " is not found"));
}

// Whether the version that a request asks for, if it names one, is among these.
bool HasWanted(const std::vector<int64_t>& versions, const InferRequestView& view) {
  const Result<std::optional<int64_t>> wanted = ParseModelVersion(view.model_version);
  if (!wanted.ok() || !wanted->has_value()) return wanted.ok();
  return std::find(versions.begin(), versions.end(), **wanted) != versions.end();
}

// Nothing of CUDA is opened before a client asks for it.
std::shared_ptr<DeviceRegions> ClientDevices(const Engine::Options& options) {
  if (!options.allow_client_shm) return nullptr;
  return std::make_shared<gpu::IpcDevices>([] { return gpu::OpenDriverApi(); });
}

}  // namespace

Engine::Engine(Options options)
    : clock_(*options.clock),
      max_waiting_(options.max_waiting_requests),
      backends_(options.backend_directories),
      device_workers_(options.backend_directories),
      admission_(options.limits, std::move(options.access), *options.clock),
      shared_memory_({.is_allowed = options.allow_client_shm,
                      .max_request_bytes = options.limits.max_request_bytes,
                      .devices = options.devices != nullptr ? std::move(options.devices)
                                                            : ClientDevices(options)}),
      timer_(*options.clock) {}

Engine::~Engine() {
  if (!Shutdown(int64_t{60} * 1'000'000'000)) {
    Log(LogLevel::kError, "engine", "an instance is still running at the engine's end");
  }
}

Result<std::shared_ptr<BackendModel>> Engine::LoadModel(const std::string& backend,
                                                        const LoadOptions& options,
                                                        std::string* engine) {
  if (!options.devices.empty()) {
    PENSTOCK_ASSIGN_OR_RETURN(auto model,
                              device_workers_.Load(backend, backends_.options(backend), options));
    if (engine != nullptr) *engine = model->engine();
    return std::shared_ptr<BackendModel>(std::move(model));
  }
  PENSTOCK_ASSIGN_OR_RETURN(Backend* const found, backends_.Get(backend));
  if (engine != nullptr) *engine = found->description();
  PENSTOCK_ASSIGN_OR_RETURN(std::unique_ptr<BackendModel> model, found->Load(options));
  return std::shared_ptr<BackendModel>(std::move(model));
}

Result<std::shared_ptr<ModelVersion>> Engine::CreateVersion(std::shared_ptr<BackendModel> model,
                                                            VersionSpec spec) {
  return ModelVersion::Create(std::move(model), std::move(spec), {clock_, timer_, shared_memory_});
}

void Engine::Start(const std::shared_ptr<ModelVersion>& version) {
  {
    MutexLock lock(mu_);
    started_.push_back(version);
  }
  try {
    version->Start();
  } catch (...) {  // the system has no thread to give: those that did start are ended
    Drain(version, kStartDrainNs);
    throw;
  }
}

void Engine::SetServing(const std::string& model_name,
                        std::vector<std::shared_ptr<ModelVersion>> versions,
                        std::vector<int64_t> unready, bool loads_on_demand) {
  std::sort(versions.begin(), versions.end(),
            [](const auto& a, const auto& b) { return a->spec().version < b->spec().version; });
  const bool ends_wait = !versions.empty() || !loads_on_demand;
  Model model{std::move(versions), std::move(unready), loads_on_demand, nullptr, std::nullopt};
  {
    MutexLock lock(mu_);
    Model& current = models_[model_name];
    std::swap(current, model);
    if (!ends_wait) {
      current.waiting = std::move(model.waiting);
      current.loadable = std::move(model.loadable);
    }
  }
  LetGo(model.waiting, Status::Ok());
}

std::vector<std::string> Engine::TakeDemands() {
  demand_event_.Clear();
  MutexLock lock(mu_);
  return std::exchange(demands_, {});
}

// What waited for it; whoever comes from here on is a new demand.
std::shared_ptr<Batcher> Engine::EndLoad(const std::string& model_name) {
  MutexLock lock(mu_);
  const auto found = models_.find(model_name);
  if (found == models_.end()) return nullptr;
  found->second.loadable.reset();
  return std::move(found->second.waiting);
}

void Engine::EndWait(const std::string& model_name, const Status& why) {
  LetGo(EndLoad(model_name), why);
}

void Engine::GiveUpLoad(const std::string& model_name) {
  const std::shared_ptr<Batcher> waiting = EndLoad(model_name);
  if (waiting == nullptr) return;
  const std::vector<RequestRef> taken = waiting->TakeBack();
  timer_.Unwatch(*waiting);
  for (const RequestRef& ref : taken) AsInfer(ref).GiveBack();  // they wait on: not counted
}

void Engine::SetLoadable(const std::string& model_name, std::vector<int64_t> versions) {
  std::vector<RequestRef> hopeless;
  std::vector<int64_t> unready;
  {
    MutexLock lock(mu_);
    const auto found = models_.find(model_name);
    if (found == models_.end() || !found->second.loads_on_demand) return;
    Model& model = found->second;
    if (!model.versions.empty()) return;
    if (model.waiting != nullptr) {
      hopeless = model.waiting->TakeBackIf([&versions](const Request& request) {
        return !HasWanted(versions, static_cast<const InferRequest&>(request).view);
      });
    }
    unready = model.unready;
    model.loadable = std::move(versions);
  }
  for (const RequestRef& ref : hopeless) {
    const InferRequestView& view = AsInfer(ref).view;
    AsInfer(ref).Refuse(NoSuchVersion(view, **ParseModelVersion(view.model_version), unready));
  }
}

size_t Engine::waiting(const std::string& model_name) const {
  std::shared_ptr<Batcher> waiting;
  {
    MutexLock lock(mu_);
    const auto found = models_.find(model_name);
    if (found != models_.end()) waiting = found->second.waiting;
  }
  if (waiting == nullptr) return 0;
  const BatcherCounters counters = waiting->counters();
  return counters.pending + counters.background.pending;
}

Histogram Engine::wait_us() const {
  MutexLock lock(mu_);
  return wait_us_;
}

std::shared_ptr<Batcher> Engine::MakeWaiting() {
  Batcher::Options options;
  options.levels[0].max_queue_size = max_waiting_;
  options.background.max_queue_size = max_waiting_;
  options.clock = &clock_;
  options.expiry_observer = &timer_;
  auto waiting = std::make_shared<Batcher>(std::move(options));
  timer_.Watch(waiting);
  return waiting;
}

// Each goes back to its submitter, whose thread looks its model up again: who asks for a request's
// cancellation, and in which order a stream is answered, is that thread's affair.
void Engine::LetGo(const std::shared_ptr<Batcher>& waiting, const Status& why) {
  if (waiting == nullptr) return;
  const std::vector<RequestRef> taken = waiting->TakeBack();
  timer_.Unwatch(*waiting);
  {
    const int64_t now_ns = clock_.NowNs();
    MutexLock lock(mu_);
    for (const RequestRef& ref : taken) wait_us_.Add(now_ns - ref->enqueue_ns());
  }
  for (const RequestRef& ref : taken) {
    if (why.ok()) {
      AsInfer(ref).GiveBack();
    } else {
      AsInfer(ref).Refuse(why);
    }
  }
}

// FAILED_PRECONDITION: look the model up again.
Status Engine::WaitForLoad(const RequestRef& ref, const Status& otherwise) {
  InferRequest& request = AsInfer(ref);
  request.version.reset();  // one that was just taken out, to be freed; without the lock
  if (otherwise.code() == StatusCode::kInvalidArgument) return otherwise;  // no load mends it
  const std::string name(request.view.model_name);
  bool is_demand = false;
  {
    MutexLock lock(mu_);
    const auto found = models_.find(name);
    if (found == models_.end() || !found->second.loads_on_demand) return otherwise;
    Model& model = found->second;
    if (!model.versions.empty()) {  // loaded a moment ago, if with the version that is asked for
      std::vector<int64_t> served;
      for (const auto& version : model.versions) served.push_back(version->spec().version);
      return HasWanted(served, request.view) ? FailedPrecondition("") : otherwise;
    }
    if (model.loadable.has_value() && !HasWanted(*model.loadable, request.view)) return otherwise;
    is_demand = model.waiting == nullptr;
    PENSTOCK_RETURN_IF_ERROR(JoinWaiting(model, ref, name));
  }
  if (is_demand) demand_event_.Set();
  return Status::Ok();
}

// With the lock, so that nobody gives the queue back, or the load up, between finding the queue and
// being in it.
Status Engine::JoinWaiting(Model& model, const RequestRef& ref, const std::string& name) {
  std::shared_ptr<Batcher> waiting = model.waiting;
  const bool is_first = waiting == nullptr;
  if (is_first) {
    waiting = MakeWaiting();
    demands_.push_back(name);
  }
  Status status = waiting->Enqueue(ref, Wake::kLater);
  if (status.ok()) {
    AsInfer(ref).waits_in = model.waiting = std::move(waiting);
    return status;
  }
  if (is_first) {  // nobody waits in it
    demands_.pop_back();
    timer_.Unwatch(*waiting);
  }
  if (status.code() != StatusCode::kUnavailable) return status;
  return ResourceExhausted(StrCat("model ", Quoted(name), " is not loaded yet, and ", max_waiting_,
                                  " requests wait for it already"));
}

void Engine::Retry(const RequestRef& ref) {
  InferRequest& request = AsInfer(ref);
  request.retries = false;
  request.waits_in.reset();
  Status status;
  try {
    status = Submit(ref, Wake::kLater);
  } catch (const std::bad_alloc&) {
    status = ResourceExhausted("no memory for a request that has waited for its model");
  }
  if (status.ok()) return;
  if (request.is_over_size) admission_.CountRefusal(Refusal::kSize);
  request.Refuse(status);
}

void Engine::Forget(const std::string& model_name) {
  // Goes without the lock: freeing a model may take a while.
  std::unordered_map<std::string, Model>::node_type forgotten;
  {
    MutexLock lock(mu_);
    forgotten = models_.extract(model_name);
  }
  if (!forgotten.empty()) LetGo(forgotten.mapped().waiting, Status::Ok());
}

bool Engine::Drain(const std::shared_ptr<ModelVersion>& version, int64_t timeout_ns) {
  if (!version->Drain(timeout_ns)) return false;
  MutexLock lock(mu_);
  std::erase(started_, version);
  return true;
}

void Engine::Infer(const RequestRef& ref, const InferOptions& options) {
  InferRequest& request = AsInfer(ref);
  request.received_ns = clock_.NowNs();
  request.is_background = request.is_job = options.is_background;
  Status status = Admit(&request, options.caller);
  if (status.ok()) {
    status = ParseAndSubmit(ref, options.wake);
  } else if (request.is_stream) {  // the reply says which of the stream's requests it refuses
    request.view.id = PeekRequestId(request.message);
  }
  if (status.ok()) return;
  if (request.is_over_size) admission_.CountRefusal(Refusal::kSize);
  request.Refuse(status);
}

// Clients choose how much memory this takes: not having it fails the request, not the server.
Status Engine::ParseAndSubmit(const RequestRef& ref, Wake wake) {
  InferRequest& request = AsInfer(ref);
  try {
    PENSTOCK_RETURN_IF_ERROR(ParseInferRequest(request.message, HostPool::Shared(), &request.view));
    // Jobs bound themselves: what they send waits, and is not refused.
    if (!request.is_job && IsLowered(request.view)) {
      size_t size_bytes = request.message.size();
      for (const Buffer& each : request.view.decoded) size_bytes += each.size();
      PENSTOCK_RETURN_IF_ERROR(admission_.TakeBackgroundPlace(size_bytes));
      request.background_bytes = size_bytes;
    }
    return Submit(ref, wake);
  } catch (const std::bad_alloc&) {
    return ResourceExhausted(
        StrCat("no memory for a request of ", request.message.size(), " bytes"));
  }
}

Status Engine::Admit(InferRequest* request, const Caller* caller) {
  PENSTOCK_RETURN_IF_ERROR(
      admission_.Admit(caller, CallGroup::kInference, request->message.size(), &request->who));
  request->is_admitted = true;
  return Status::Ok();
}

Status Engine::Submit(const RequestRef& ref, Wake wake) {
  InferRequest& request = AsInfer(ref);
  Status status;
  for (int round = 0; round < kMaxSubmitRounds; ++round) {
    Result<std::shared_ptr<ModelVersion>> found = FindVersion(request.view);
    if (found.ok()) {
      request.version = *std::move(found);
      status = request.version->Submit(ref, wake);
    } else {
      status = WaitForLoad(ref, found.status());
    }
    if (status.code() != StatusCode::kFailedPrecondition) return status;
    request.ResetBinding();
  }
  return Unavailable(StrCat(Quoted(request.view.model_name), " is not at ready state"));
}

Result<std::shared_ptr<ModelVersion>> Engine::FindVersion(const InferRequestView& view) const {
  PENSTOCK_ASSIGN_OR_RETURN(const std::optional<int64_t> wanted,
                            ParseModelVersion(view.model_version));
  MutexLock lock(mu_);
  // The key's one allocation for long names; short ones stay inside the string.
  const auto found = models_.find(std::string(view.model_name));
  if (found == models_.end()) {
    return NotFound(
        StrCat("Request for unknown model: ", Quoted(view.model_name), " is not found"));
  }
  const Model& model = found->second;
  if (!wanted.has_value()) {
    if (!model.versions.empty()) return model.versions.back();
    return NotFound(
        StrCat("Request for unknown model: '", view.model_name, "' has no available versions"));
  }
  for (const auto& version : model.versions) {
    if (version->spec().version == *wanted) return version;
  }
  return NoSuchVersion(view, *wanted, model.unready);
}

std::shared_ptr<CompletionQueue> Engine::MakeCompletionQueue() {
  auto queue = std::make_shared<CompletionQueue>();
  MutexLock lock(mu_);
  queues_.push_back(queue);
  return queue;
}

void Engine::Cancel(const RequestRef& ref) {
  // Set before Infer or Retry returned, and a caller cancels only after that, on the same thread.
  if (const auto& waits_in = AsInfer(ref).waits_in; waits_in != nullptr)
    return waits_in->Cancel(*ref);
  if (const auto& version = AsInfer(ref).version; version != nullptr) version->Cancel(*ref);
}

void Engine::Release(InferRequest& request) {
  if (!std::exchange(request.is_admitted, false)) return;  // refused at the door, and counted there
  completed_[static_cast<size_t>(request.status.code())].fetch_add(1, std::memory_order_relaxed);
  if (const auto held = std::exchange(request.background_bytes, std::nullopt)) {
    admission_.ReleaseBackground(*held);
  }
  admission_.Release();
}

std::map<StatusCode, uint64_t> Engine::completed() const {
  std::map<StatusCode, uint64_t> by_code;
  for (size_t i = 0; i < completed_.size(); ++i) {
    const uint64_t count = completed_[i].load(std::memory_order_relaxed);
    if (count > 0) by_code[static_cast<StatusCode>(i)] = count;
  }
  return by_code;
}

bool Engine::Shutdown(int64_t timeout_ns) {
  const int64_t deadline_ns = clock_.NowNs() + timeout_ns;
  admission_.StopAccepting();
  std::vector<std::shared_ptr<ModelVersion>> versions;
  std::unordered_map<std::string, Model> forgotten;
  {
    MutexLock lock(mu_);
    models_.swap(forgotten);
    versions = started_;
    // Those served too: one that was never started may hold requests that nobody would end.
    for (const auto& [name, model] : forgotten) {
      versions.insert(versions.end(), model.versions.begin(), model.versions.end());
    }
  }
  for (auto& [name, model] : forgotten) {
    LetGo(model.waiting, Unavailable("the server is shutting down"));
  }
  forgotten.clear();
  bool all_ended = true;
  for (const auto& version : versions) {
    const int64_t left_ns = std::max<int64_t>(deadline_ns - clock_.NowNs(), 0);
    all_ended = Drain(version, left_ns) && all_ended;
  }
  timer_.Stop();
  return all_ended;
}

}  // namespace penstock
