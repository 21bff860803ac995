// PlanModel: a plan on one or several devices, with lanes on each; PlanInstance: runs its batches.

#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "backends/tensorrt/device_table.h"
#include "backends/tensorrt/plan.h"
#include "backends/tensorrt/plan_engine.h"
#include "backends/tensorrt/plan_settings.h"
#include "base/status.h"
#include "gpu/ipc_imports.h"
#include "gpu/lane_group.h"
#include "gpu/pinned_pool.h"
#include "gpu/registered_memory.h"
#include "gpu/route.h"

namespace penstock::tensorrt {

// A plan on one device.
// Ownership: borrows the device, which outlives it.
// Lifecycle: the destructor waits for what is in flight.
class PlanReplica {
 public:
  // Pins exactly the host memory that its lanes' slots take. REQUIRES: the device is this thread's.
  // Blocking: copies weights, captures graphs, measures them.
  static Result<std::unique_ptr<PlanReplica>> Load(const std::string& label,
                                                   const DeviceTable::Found& found,
                                                   std::unique_ptr<Plan> plan,
                                                   const PlanSettings& settings);
  // Whichever thread this is: the driver gives it no device by itself, and frees nothing without.
  ~PlanReplica() { static_cast<void>(device_.api().SetDevice(ordinal_)); }
  PlanReplica(const PlanReplica&) = delete;
  PlanReplica& operator=(const PlanReplica&) = delete;

  const PlanEngine& engine() const { return *engine_; }
  const PlanLayout& layout() const { return engine_->layout(); }
  gpu::LaneGroup& lanes() { return *lanes_; }
  gpu::Device& device() { return device_; }
  const gpu::Device& device() const { return device_; }
  int ordinal() const { return ordinal_; }
  // Whether lanes may copy from where it lies.
  bool IsRegistered(std::span<const uint8_t> bytes) const {
    return registered_ != nullptr && registered_->Contains(bytes);
  }
  // `free_before`: the device's free memory before the plan was read.
  Status LearnMemory(size_t free_before);
  DeviceUse use() const;

 private:
  PlanReplica(const DeviceTable::Found& found, std::unique_ptr<PlanEngine> engine)
      : device_(*found.device),
        ordinal_(found.ordinal),
        registered_(found.registered),
        engine_(std::move(engine)) {}

  Status AddLanes(const PlanSettings& settings);

  gpu::Device& device_;
  const int ordinal_;
  const gpu::RegisteredMemory* const registered_;  // null: there is none
  size_t memory_bytes_ = 0;                        // constant after Load
  // In this order: lanes go first.
  std::unique_ptr<PlanEngine> engine_;
  std::unique_ptr<gpu::PinnedPool> pool_;
  std::unique_ptr<gpu::LaneGroup> lanes_;
};

class PlanModel final : public BackendModel {
 public:
  // `read` is called for each device that `settings` names, as this thread's current one. Errors: of
  // `read`, DeviceTable::Get, PlanLayout::Create, gpu::LaneGroup::Load, with `label`.
  using Read = std::function<Result<std::unique_ptr<Plan>>(const DeviceTable::Found&)>;
  static Result<std::unique_ptr<BackendModel>> Load(DeviceTable& devices, const std::string& label,
                                                    const PlanSettings& settings, const Read& read);

  const ModelSignature& signature() const override {
    return replicas_.front()->layout().signature();
  }
  std::string runs_on() const override;
  std::vector<DeviceUse> device_use() const override;
  // Instances take the devices in turn.
  Result<std::unique_ptr<BackendInstance>> CreateInstance(const InstanceOptions& options) override;

  PlanReplica& replica(size_t i) { return *replicas_[i]; }
  size_t replicas() const { return replicas_.size(); }

 private:
  PlanModel() = default;

  std::vector<std::unique_ptr<PlanReplica>> replicas_;  // constant after Load
  std::atomic<size_t> instances_{0};
};

// Has one batch in flight; as many instances as there are slots keep a device busy.
class PlanInstance final : public BackendInstance {
 public:
  PlanInstance(PlanReplica& replica, OutputRoom output_room)
      : replica_(replica), output_room_(std::move(output_room)) {}

  // False once the device is lost: only another process can use it again. It is asked, since another
  // backend of this process may have met that.
  bool is_available() const override { return replica_.device().Answers(); }
  Status Execute(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                 std::vector<BatchOutput>* outputs) override {
    return ExecuteParts(inputs, wanted, {}, outputs);
  }
  // Memory on this GPU, on others whose memory this process has, and on those that this one sees.
  bool Reaches(const ExportedMemory& memory) override {
    return !replica_.device().health().is_faulted() && !replica_.engine().has_host_inputs() &&
           replica_.device().imports().Find(memory).data != nullptr;
  }
  Status ExecuteParts(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                      const BatchParts& parts, std::vector<BatchOutput>* outputs) override;

 private:
  struct Input {
    const TensorView* tensor = nullptr;
    size_t size_bytes = 0;  // of all its parts
  };

  // Which input each of the layout's is, and the batch's rows. INVALID_ARGUMENT naming the input
  // that is missing, or has another number of rows, rank or size.
  Result<gpu::ShapedBatch> Arrange(std::span<const BatchInput> inputs, const BatchParts& parts,
                                   std::vector<Input>* arranged) const;
  Status CheckInput(size_t index, const Input& input) const;
  Status RunParts(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                  const BatchParts& parts, std::vector<BatchOutput>* outputs);
  // Says in route_ where the tensors are, and copies those to the slot that are nowhere else.
  Status Stage(const gpu::SlotLease& lease, std::span<const BatchInput> inputs,
               const BatchParts& parts);
  Status StagePart(const gpu::SlotLease& lease, size_t tensor, const InputPart& part,
                   size_t offset_bytes);
  void StageHost(const gpu::SlotLease& lease, size_t tensor, std::span<const uint8_t> bytes,
                 size_t offset_bytes);
  Status AddTargets(std::span<const size_t> wanted, std::span<const OutputPart> parts);
  Result<gpu::DeviceAddress> Hold(const DevicePart& part);
  // Asks the caller for places for those outputs that are read on the host; the device writes there by
  // itself where it can, which it must be told before the batch runs.
  void PlaceOutputs(const gpu::ShapedBatch& batch, std::span<const size_t> wanted);
  void RouteToPlaces(const gpu::ShapedBatch& batch, std::span<const size_t> wanted);
  bool IsStaged(size_t output) const;  // in the slot's pinned memory
  size_t OutputBytes(const gpu::ShapedBatch& batch, size_t output) const;
  void Forget() {
    route_.Clear();
    places_.clear();
  }
  // For each batch: another instance may have taken another device on this thread since.
  Status TakeDevice();
  Status Run(gpu::SlotLease lease, gpu::ShapedBatch& batch, gpu::SlotLease* back);
  void TakeOutputs(const gpu::SlotLease& lease, const gpu::ShapedBatch& batch,
                   std::span<const size_t> wanted, std::vector<BatchOutput>* outputs) const;

  PlanReplica& replica_;
  const OutputRoom output_room_;
  // Of the batch that runs.
  gpu::Route route_;
  std::vector<std::span<uint8_t>> places_;  // of the wanted outputs; none: there is no room
};

}  // namespace penstock::tensorrt
