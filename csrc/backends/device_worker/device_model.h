// DeviceModel and DeviceInstance: a model in the workers of its devices, as the engine sees it.

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/backend.h"
#include "backends/device_worker/device_worker.h"
#include "base/mutex.h"
#include "worker/slab_inputs.h"

namespace penstock {

// A part, and the worker that has it; frees it when it goes.
class HeldPart {
 public:
  static Result<std::shared_ptr<HeldPart>> Make(std::shared_ptr<DeviceWorker> worker,
                                                WorkerPartOptions options);
  ~HeldPart() { worker_->Remove(part_); }
  HeldPart(const HeldPart&) = delete;
  HeldPart& operator=(const HeldPart&) = delete;

  const std::shared_ptr<DeviceWorker>& worker() const { return worker_; }
  const std::shared_ptr<WorkerPart>& part() const { return part_; }
  bool is_ready() const { return worker_->is_ready(*part_); }
  // Since it was made.
  uint64_t restarts() const { return worker_->restarts() - restarts_before_; }

 private:
  HeldPart(std::shared_ptr<DeviceWorker> worker, std::shared_ptr<WorkerPart> part)
      : worker_(std::move(worker)), part_(std::move(part)), restarts_before_(worker_->restarts()) {}

  const std::shared_ptr<DeviceWorker> worker_;
  const std::shared_ptr<WorkerPart> part_;
  const uint64_t restarts_before_;
};

// The instances of a model, so that one may run a batch for another whose device is away.
// Threading: thread-safe. Ownership: shared by the model and its instances; owns none.
class DeviceRoster {
 public:
  void Add(const std::shared_ptr<HeldPart>& instance);
  // One that is ready; null where none is.
  std::shared_ptr<HeldPart> FindReady() const;

 private:
  mutable Mutex mu_;
  // Guarded by mu_.
  std::vector<std::weak_ptr<HeldPart>> instances_ GUARDED_BY(mu_);
};

// Threading: as BackendModel.
class DeviceModel final : public BackendModel {
 public:
  struct Limits {
    int64_t load_ns = 0;
    int64_t execution_ns = 0;
  };

  // Loads the model in each of `workers`. `document`: what EncodeDeviceLoad gives. FAILED_PRECONDITION
  // where what they describe is not the same.
  static Result<std::unique_ptr<DeviceModel>> Load(
      std::string label, const std::vector<std::shared_ptr<DeviceWorker>>& workers,
      const std::string& document, Limits limits);

  const ModelSignature& signature() const override { return signature_; }
  std::string runs_on() const override;
  std::vector<DeviceUse> device_use() const override;
  const std::string& engine() const { return models_.front()->part()->description().engine; }
  // Instances take the devices in turn.
  Result<std::unique_ptr<BackendInstance>> CreateInstance(const InstanceOptions& options) override;

 private:
  DeviceModel(std::string label, Limits limits) : label_(std::move(label)), limits_(limits) {}

  // Constant after Load.
  const std::string label_;
  const Limits limits_;
  std::vector<std::shared_ptr<HeldPart>> models_;  // one for each device
  ModelSignature signature_;

  const std::shared_ptr<DeviceRoster> roster_ = std::make_shared<DeviceRoster>();
  std::atomic<size_t> instances_{0};
};

// Threading: as BackendInstance.
// Ownership: owns its part; borrows the signature. Memory of AllocateInput is borrowed from it until
// released.
class DeviceInstance final : public BackendInstance {
 public:
  // `tells_restarts`: those of the process are counted once for a model and device.
  DeviceInstance(std::string label, const ModelSignature& signature, std::shared_ptr<HeldPart> own,
                 std::shared_ptr<DeviceRoster> roster, bool tells_restarts)
      : label_(std::move(label)),
        signature_(signature),
        own_(std::move(own)),
        roster_(std::move(roster)),
        tells_restarts_(tells_restarts) {}

  bool is_available() const override { return own_->is_ready(); }
  uint64_t restarts() const override { return tells_restarts_ ? own_->restarts() : 0; }
  Buffer AllocateInput(size_t size_bytes) override { return inputs_.Allocate(size_bytes); }
  Status Execute(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                 std::vector<BatchOutput>* outputs) override {
    return ExecuteParts(inputs, wanted, {}, outputs);
  }
  bool Reaches(const ExportedMemory& memory) override {
    return own_->worker()->Reaches(*own_->part(), memory);
  }
  Status ExecuteParts(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                      const BatchParts& parts, std::vector<BatchOutput>* outputs) override;

 private:
  // Constant after construction.
  const std::string label_;
  const ModelSignature& signature_;
  const std::shared_ptr<HeldPart> own_;
  const std::shared_ptr<DeviceRoster> roster_;
  const bool tells_restarts_;

  // Of the current batch.
  SlabInputs inputs_;
  std::vector<WorkerTensor> tensors_;
};

}  // namespace penstock
