#include "engine/model_version.h"

#include <algorithm>
#include <cassert>
#include <system_error>
#include <unordered_set>
#include <utility>

#include "base/strcat.h"
#include "engine/bind_request.h"
#include "engine/response_channel.h"

namespace penstock {
namespace {

// Requests of a version that clients have lowered: no more than is good for the server. Jobs have
// bounds of their own for what they have in flight.
constexpr size_t kMaxQueuedBackground = 4096;

Batcher::Options BatcherOptions(const VersionSpec& spec,
                                const ModelVersion::Environment& environment) {
  Batcher::Options options;
  options.policy.max_batch_size = std::max(spec.max_batch_size, 1U);
  options.policy.preferred_batch_sizes = spec.preferred_batch_sizes;
  options.policy.max_background_rows = spec.max_background_rows;
  options.policy.max_queue_delay_ns = std::min(spec.max_queue_delay_us, kNever / 1000) * 1000;
  // A batch takes no more memory for its inputs than a message may: it is made by what comes, and
  // what lies in shared memory costs those who send it nothing.
  options.policy.max_shared_bytes = environment.shared_memory.options().max_request_bytes;
  // Without a batch dimension there is nothing to join requests along.
  options.policy.combines_requests = spec.combines_requests && spec.has_batch_dimension();
  options.levels = spec.queue_policies;
  options.default_priority = spec.default_priority;
  options.background.max_queue_size = kMaxQueuedBackground;
  options.max_background_running =
      std::max<size_t>(spec.instance_count, 1) * BackgroundRows(options.policy);
  options.preserves_ordering = spec.preserves_ordering;
  options.clock = &environment.clock;
  options.expiry_observer = &environment.timer;
  return options;
}

}  // namespace

Result<std::shared_ptr<ModelVersion>> ModelVersion::Create(std::shared_ptr<BackendModel> model,
                                                           VersionSpec spec,
                                                           Environment environment) {
  PENSTOCK_RETURN_IF_ERROR(BindToSignature(model->signature(), &spec));
  // Not make_shared: the constructor is private.
  std::shared_ptr<ModelVersion> version(
      new ModelVersion(std::move(model), std::move(spec), environment));  // NOLINT
  PENSTOCK_RETURN_IF_ERROR(version->MakeInstances());
  environment.timer.Watch(version->batcher_);
  return version;
}

ModelVersion::ModelVersion(std::shared_ptr<BackendModel> model, VersionSpec spec,
                           Environment environment)
    : spec_(std::make_shared<const VersionSpec>(std::move(spec))),
      version_text_(std::to_string(spec_->version)),
      runs_on_(model->runs_on()),
      environment_(environment),
      batcher_(std::make_shared<Batcher>(BatcherOptions(*spec_, environment))),
      model_(std::move(model)),
      told_by_(model_.get()) {}

ModelVersion::~ModelVersion() {
  {
    MutexLock lock(mu_);
    assert(running_threads_ == 0);
  }
  environment_.timer.Unwatch(*batcher_);
}

Result<std::unique_ptr<Instance>> ModelVersion::MakeInstance(BackendModel& model, uint32_t number) {
  const std::string name = StrCat(spec_->model_name, "_", spec_->version, "_", number);
  PENSTOCK_ASSIGN_OR_RETURN(auto backend, model.CreateInstance({.name = name}));
  return std::make_unique<Instance>(
      name, std::move(backend),
      Instance::Environment{*spec_, *batcher_, statistics_, kept_, environment_.clock});
}

Status ModelVersion::MakeInstances() {
  MutexLock control(control_mu_);
  for (; instances_made_ < spec_->instance_count; ++instances_made_) {
    PENSTOCK_ASSIGN_OR_RETURN(auto instance, MakeInstance(*model_, instances_made_));
    MutexLock lock(instances_mu_);
    instances_.push_back(std::move(instance));
    first_ = instances_[0].get();
  }
  if (spec_->is_decoupled && !first_->answers_requests()) {
    return InvalidArgument(StrCat(spec_->DisplayName(),
                                  ": model_transaction_policy.decoupled is not supported by its ",
                                  "backend, which gives one response to each request"));
  }
  return Status::Ok();
}

// Null where the model answers whole batches.
std::shared_ptr<ResponseChannel> ModelVersion::MakeChannel(bool is_warm_up) const {
  using Use = ResponseChannel::Use;
  if (!first_->answers_requests()) return nullptr;
  const Use use = spec_->is_decoupled ? Use::kBlocks : Use::kOutputs;
  return std::make_shared<ResponseChannel>(spec_, is_warm_up ? Use::kNone : use);
}

Status ModelVersion::WarmUp(std::span<const uint8_t> message) {
  MutexLock control(control_mu_);
  if (phase_ != Phase::kCreated) {
    return FailedPrecondition(spec_->DisplayName() + " is warmed up before it is started");
  }
  for (Instance* const instance : Instances()) {
    PENSTOCK_RETURN_IF_ERROR(WarmUpInstance(*instance, message));
  }
  return Status::Ok();
}

Status ModelVersion::WarmUpInstance(Instance& instance, std::span<const uint8_t> message) const {
  const RequestRef ref = InferRequestPool::Shared().Get();
  InferRequest& request = AsInfer(ref);
  PENSTOCK_RETURN_IF_ERROR(ParseInferRequest(message, HostPool::Shared(), &request.view));
  PENSTOCK_RETURN_IF_ERROR(BindRequest(*spec_, environment_.shared_memory, &request));
  request.channel = MakeChannel(/*is_warm_up=*/true);
  return instance.WarmUp(ref);
}

void ModelVersion::Start() {
  MutexLock control(control_mu_);
  if (phase_ != Phase::kCreated) return;
  phase_ = Phase::kStarted;
  for (Instance* const instance : Instances()) StartInstance(*instance);
}

void ModelVersion::StartInstance(Instance& instance) {
  MutexLock lock(mu_);  // counted when it has started, and before it can end
  instance.Start([this] {
    MutexLock lock(mu_);
    running_threads_ -= 1;
    exited_.NotifyAll();
  });
  running_threads_ += 1;
}

Status ModelVersion::AddInstance(std::span<const std::string_view> warm_ups) {
  Status unready = FailedPrecondition(spec_->DisplayName() + " takes no further instance");
  std::shared_ptr<BackendModel> model;  // before the instance: it outlives it
  uint32_t number = 0;
  {
    MutexLock control(control_mu_);
    if (phase_ != Phase::kStarted) return unready;
    model = model_;
    number = instances_made_++;
  }
  PENSTOCK_ASSIGN_OR_RETURN(auto instance, MakeInstance(*model, number));
  for (const std::string_view each : warm_ups) {
    const std::span message(reinterpret_cast<const uint8_t*>(each.data()), each.size());
    PENSTOCK_RETURN_IF_ERROR(WarmUpInstance(*instance, message));
  }
  MutexLock control(control_mu_);
  if (phase_ != Phase::kStarted) return unready;
  MutexLock lock(instances_mu_);
  instances_.reserve(instances_.size() + 1);
  try {
    StartInstance(*instance);
  } catch (const std::system_error&) {
    return ResourceExhausted(spec_->DisplayName() + ": there is no thread for another instance");
  }
  instances_.push_back(std::move(instance));
  return Status::Ok();
}

Result<bool> ModelVersion::RemoveInstance(int64_t timeout_ns) {
  const int64_t deadline_ns = environment_.clock.NowNs() + timeout_ns;
  std::shared_ptr<BackendModel> model;  // outlives what is freed here
  {
    MutexLock control(control_mu_);
    if (phase_ != Phase::kStarted) {
      return FailedPrecondition(spec_->DisplayName() + " does not run");
    }
    model = model_;
    MutexLock lock(instances_mu_);
    if (instances_.size() < 2) {
      return FailedPrecondition(spec_->DisplayName() + " keeps its only instance");
    }
    leaving_.push_back(std::move(instances_.back()));
    instances_.pop_back();
    batcher_->Dismiss(leaving_.back().get());
  }
  if (FreeLeaving(deadline_ns)) return true;
  MutexLock control(control_mu_);  // a drain may have come to its end, and found it not there
  return phase_ == Phase::kDrained && FreeLeaving(kNever);
}

// Whoever frees an instance has taken it out of leaving_: a drain meanwhile waits for its thread and
// for what it keeps, and leaves the rest to this one.
bool ModelVersion::FreeLeaving(int64_t deadline_ns) {
  std::vector<std::unique_ptr<Instance>> taken;
  {
    MutexLock lock(instances_mu_);
    taken.swap(leaving_);
  }
  std::erase_if(taken, [&](const std::unique_ptr<Instance>& instance) {
    if (!WaitForEnd(*instance, deadline_ns)) return false;
    if (!kept_.WaitEmpty(environment_.clock, deadline_ns, instance->keeper())) return false;
    instance->Join();
    return true;
  });
  if (taken.empty()) return true;
  MutexLock lock(instances_mu_);
  for (auto& instance : taken) leaving_.push_back(std::move(instance));
  return false;
}

bool ModelVersion::WaitForEnd(const Instance& instance, int64_t deadline_ns) {
  MutexLock lock(mu_);
  while (!instance.has_ended()) {
    if (environment_.clock.NowNs() >= deadline_ns) return false;
    environment_.clock.WaitUntil(exited_, mu_, deadline_ns);
  }
  return true;
}

std::vector<Instance*> ModelVersion::Instances() const {
  MutexLock lock(instances_mu_);
  std::vector<Instance*> all;
  for (const auto& instance : instances_) all.push_back(instance.get());
  return all;
}

Status ModelVersion::Submit(const RequestRef& ref, Wake wake) {
  InferRequest& request = AsInfer(ref);
  Status status = Status::Ok();
  if (spec_->is_decoupled && !request.is_stream) {
    status =
        Unimplemented("ModelInfer RPC doesn't support models with decoupled transaction policy");
  } else {
    status = BindRequest(*spec_, environment_.shared_memory, &request);
  }
  if (status.ok()) {
    request.channel = MakeChannel(/*is_warm_up=*/false);
    request.is_decoupled = spec_->is_decoupled;
    if (!request.is_background) request.HoldSharedMemory();  // it runs on no submitter's thread
    status = batcher_->Enqueue(ref, wake);
  }
  if (!status.ok() && status.code() != StatusCode::kFailedPrecondition) {
    statistics_.RecordRefusal(request, status.code(),
                              environment_.clock.NowNs() - request.received_ns);
  }
  return status;
}

void ModelVersion::FinishKept(InferRequest& request, BatchTimes times, const Status& outcome) {
  times.computed_ns = times.end_ns = environment_.clock.NowNs();
  Status final_outcome = outcome;
  batcher_->EndOne(request, &final_outcome);
  statistics_.RecordKept(request, times, final_outcome, UnixTimeMs());
  request.ReleaseSharedMemory();
  batcher_->DeliverOne(request, final_outcome);
  kept_.Remove(request);
}

bool ModelVersion::Drain(int64_t timeout_ns) {
  const int64_t deadline_ns = environment_.clock.NowNs() + timeout_ns;
  const Status unloaded = Unavailable(StrCat(spec_->DisplayName(), " was unloaded"));
  batcher_->Close(unloaded);
  const bool has_exited = WaitForExit(deadline_ns);
  // A version that was never started may hold requests: no thread is there to run them.
  batcher_->FailQueued(unloaded);
  if (!kept_.WaitEmpty(environment_.clock, deadline_ns)) kept_.FailAll(unloaded);
  if (!has_exited) return false;
  kept_.WaitEmpty(environment_.clock, kNever);  // for those that end on other threads right now
  MutexLock control(control_mu_);               // a reload's drain and the shutdown's may meet
  phase_ = Phase::kDrained;
  FreeLeaving(kNever);  // their threads have ended, and nothing is kept
  for (Instance* const instance : Instances()) {
    instance->Join();
    instance->Close();
  }
  {
    MutexLock told(told_mu_);
    told_by_ = nullptr;
  }
  model_.reset();  // here, not with the last request's reference: freeing weights may take a while
  return true;
}

std::vector<DeviceUse> ModelVersion::device_use() const {
  MutexLock lock(told_mu_);
  return told_by_ == nullptr ? std::vector<DeviceUse>() : told_by_->device_use();
}

bool ModelVersion::is_available() const {
  MutexLock lock(instances_mu_);
  return std::any_of(instances_.begin(), instances_.end(),
                     [](const auto& instance) { return instance->is_available(); });
}

InstanceCounts ModelVersion::instance_counts() const {
  const std::unordered_set<const void*> keepers = kept_.Keepers();
  InstanceCounts counts;
  MutexLock lock(instances_mu_);
  counts.total = instances_.size();
  for (const auto& instance : instances_) {
    counts.available += instance->is_available() ? 1 : 0;
    counts.busy += instance->is_busy() || keepers.contains(instance->keeper()) ? 1 : 0;
    counts.restarts += instance->restarts();
  }
  return counts;
}

bool ModelVersion::WaitForExit(int64_t deadline_ns) {
  MutexLock lock(mu_);
  while (running_threads_ > 0) {
    if (environment_.clock.NowNs() >= deadline_ns) return false;
    environment_.clock.WaitUntil(exited_, mu_, deadline_ns);
  }
  return true;
}

}  // namespace penstock
