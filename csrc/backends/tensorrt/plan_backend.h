// PlanBackend: the backend that runs plans, on any PlanRuntime and any gpu::Api.

#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "backends/backend.h"
#include "backends/tensorrt/device_table.h"
#include "backends/tensorrt/plan.h"
#include "base/clock.h"
#include "gpu/gpu_api.h"

namespace penstock::tensorrt {

struct PlanBackendParts {
  std::unique_ptr<gpu::Api> api;
  std::unique_ptr<PlanRuntime> runtime;
};

// Threading: thread-safe.
// Ownership: owns its parts; borrows the clock.
class PlanBackend final : public Backend {
 public:
  // `allows_host_code`: the server's administrator trusts plans with code that the host runs.
  PlanBackend(PlanBackendParts parts, Clock& clock, bool allows_host_code)
      : parts_(std::move(parts)),
        allows_host_code_(allows_host_code),
        description_(parts_.runtime->description()),
        devices_(*parts_.api, clock) {}

  std::string_view description() const override { return description_; }
  // NOT_FOUND where there is no such file, INVALID_ARGUMENT where it is empty; then as
  // PlanModel::Load.
  Result<std::unique_ptr<BackendModel>> Load(const LoadOptions& options) override;
  // Null before a model has been loaded, too: see DeviceTable.
  std::shared_ptr<void> PinHostMemory(std::span<uint8_t> memory) override {
    return devices_.PinHostMemory(memory);
  }

 private:
  const PlanBackendParts parts_;
  const bool allows_host_code_;
  const std::string description_;
  DeviceTable devices_;
};

}  // namespace penstock::tensorrt
