// GpuModels: models in ONNX Runtime's sessions on the GPUs of this process.

#pragma once

#include <functional>
#include <memory>
#include <span>

#include "backends/backend.h"
#include "backends/onnxruntime/device_session.h"
#include "backends/onnxruntime/gpu_settings.h"
#include "backends/tensorrt/device_table.h"
#include "base/clock.h"
#include "base/status.h"
#include "gpu/gpu_api.h"

namespace penstock::ort {

// What the arena of each lane's session may grow to where the model does not say: together three
// quarters of what is free on the device before the first one is opened. The rest is for what the
// engine takes beside its arena, and for the models that come later. Pure.
constexpr size_t ArenaBytes(size_t free_bytes, size_t lanes) { return free_bytes / 4 * 3 / lanes; }

// Threading: thread-safe.
// Ownership: owns the Api and its devices; borrows the clock. Outlives its models.
class GpuModels {
 public:
  GpuModels(std::unique_ptr<gpu::Api> api, Clock& clock)
      : api_(std::move(api)), devices_(*api_, clock) {}

  // Called for each device that the model goes to, as this thread's current one, before a session is
  // opened there: it will open `lanes`.
  using MakeOpener = std::function<Result<std::unique_ptr<SessionOpener>>(
      const tensorrt::DeviceTable::Found&, size_t lanes)>;

  // Parameters `device`, `lanes` and `graph_batch_sizes` are those of plans
  // (backends/tensorrt/plan_settings.h). Errors as PlanModel::Load's and SessionPlan::Create's.
  Result<std::unique_ptr<BackendModel>> Load(const LoadOptions& options,
                                             const GpuSettings& settings,
                                             const MakeOpener& make_opener);
  // As DeviceTable's.
  std::shared_ptr<void> PinHostMemory(std::span<uint8_t> memory) {
    return devices_.PinHostMemory(memory);
  }

 private:
  const std::unique_ptr<gpu::Api> api_;
  tensorrt::DeviceTable devices_;
};

}  // namespace penstock::ort
