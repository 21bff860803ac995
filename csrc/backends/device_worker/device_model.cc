#include "backends/device_worker/device_model.h"

#include "backends/worker_tensors.h"
#include "base/strcat.h"

namespace penstock {
namespace {

constexpr std::string_view kOnlyDevice = "GPU 0";  // as a worker calls the one that it sees

}  // namespace

Result<std::shared_ptr<HeldPart>> HeldPart::Make(std::shared_ptr<DeviceWorker> worker,
                                                 WorkerPartOptions options) {
  PENSTOCK_ASSIGN_OR_RETURN(auto part, worker->Add(std::move(options)));
  // Not make_shared: the constructor is private.
  return std::shared_ptr<HeldPart>(new HeldPart(std::move(worker), std::move(part)));
}

void DeviceRoster::Add(const std::shared_ptr<HeldPart>& instance) {
  MutexLock lock(mu_);
  std::erase_if(instances_, [](const auto& each) { return each.expired(); });
  instances_.push_back(instance);
}

std::shared_ptr<HeldPart> DeviceRoster::FindReady() const {
  std::vector<std::weak_ptr<HeldPart>> instances;
  {
    MutexLock lock(mu_);
    instances = instances_;
  }
  for (const auto& each : instances) {  // here the last of one may go, which waits for its worker
    auto instance = each.lock();
    if (instance != nullptr && instance->is_ready()) return instance;
  }
  return nullptr;
}

Result<std::unique_ptr<DeviceModel>> DeviceModel::Load(
    std::string label, const std::vector<std::shared_ptr<DeviceWorker>>& workers,
    const std::string& document, Limits limits) {
  std::unique_ptr<DeviceModel> model(new DeviceModel(std::move(label), limits));
  for (const auto& worker : workers) {
    PENSTOCK_ASSIGN_OR_RETURN(auto part, HeldPart::Make(worker, {.label = model->label_,
                                                                 .document = document,
                                                                 .load_limit_ns = limits.load_ns}));
    model->models_.push_back(std::move(part));
    const DeviceDescription& first = model->models_.front()->part()->description();
    const DeviceDescription& last = model->models_.back()->part()->description();
    if (!(last.signature == first.signature) || last.most_rows != first.most_rows) {
      return FailedPrecondition(StrCat(model->label_, ": on ", worker->device(),
                                       " it is another model than on ", workers.front()->device()));
    }
  }
  const DeviceDescription& description = model->models_.front()->part()->description();
  model->signature_ = ToModelSignature(description.signature);
  if (description.most_rows > 0) model->signature_.most_rows = description.most_rows;
  return model;
}

std::string DeviceModel::runs_on() const {
  std::string text;
  for (const auto& model : models_) {
    std::string_view said = model->part()->description().runs_on;
    text += text.empty() ? "" : "; ";
    if (said.starts_with(kOnlyDevice)) {
      text += model->worker()->device();
      said.remove_prefix(kOnlyDevice.size());
    }
    text += said;
  }
  return text;
}

std::vector<DeviceUse> DeviceModel::device_use() const {
  std::vector<DeviceUse> uses;
  for (size_t i = 0; i < models_.size(); ++i) {
    DeviceWorker& worker = *models_[i]->worker();
    for (DeviceUse& use : worker.device_use(*models_[i]->part())) {
      // One whose number is not known is not to be taken for one that has it.
      use.id = worker.number().value_or(-1 - static_cast<int64_t>(i));
      uses.push_back(std::move(use));
    }
  }
  return uses;
}

Result<std::unique_ptr<BackendInstance>> DeviceModel::CreateInstance(
    const InstanceOptions& options) {
  const size_t number = instances_.fetch_add(1);
  const auto& model = models_[number % models_.size()];
  PENSTOCK_ASSIGN_OR_RETURN(
      auto instance, HeldPart::Make(model->worker(), {.label = label_,
                                                      .document = options.name,
                                                      .model = model->part(),
                                                      .load_limit_ns = limits_.load_ns,
                                                      .execution_limit_ns = limits_.execution_ns}));
  roster_->Add(instance);
  return std::unique_ptr<BackendInstance>(std::make_unique<DeviceInstance>(
      label_, signature_, std::move(instance), roster_, number < models_.size()));
}

Status DeviceInstance::ExecuteParts(std::span<const BatchInput> inputs,
                                    std::span<const size_t> wanted, const BatchParts& parts,
                                    std::vector<BatchOutput>* outputs) {
  inputs_.Begin();
  tensors_.clear();
  for (const BatchInput& input : inputs) {
    tensors_.push_back({static_cast<uint32_t>(input.index), input.tensor});
  }
  std::shared_ptr<HeldPart> chosen = own_;
  // While its device is away an instance would be the quickest, and take every batch to fail it. A
  // batch with parts was there when its device still was: no other reaches them.
  const bool has_parts = !parts.inputs.empty() || !parts.outputs.empty();
  if (!has_parts && !own_->is_ready()) chosen = roster_->FindReady();
  if (chosen == nullptr) chosen = own_;
  PENSTOCK_ASSIGN_OR_RETURN(
      auto answer,
      chosen->worker()->Run(*chosen->part(), {tensors_, wanted, {}}, parts, inputs_.arena()));
  return TakeOutputs(label_, signature_, wanted, std::move(answer), outputs);
}

}  // namespace penstock
