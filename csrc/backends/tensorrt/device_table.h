// DeviceTable: the GPUs that this process sees, opened when a model first asks for one.

#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "gpu/device.h"
#include "gpu/gpu_api.h"
#include "gpu/registered_memory.h"

namespace penstock::tensorrt {

// "GPU-5a1c...-...", or "MIG-..." of a slice, as nvidia-smi writes it: one that the driver names by
// its kind, "NVIDIA H100 80GB HBM3 MIG 1g.10gb". Of such a device it gives the slice's own 16 bytes.
std::string UuidText(const gpu::DeviceProperties& device);

// Threading: thread-safe.
// Ownership: owns the devices; borrows Api and clock. Goes after all models.
// Blocking: Get, the first time for a device.
class DeviceTable {
 public:
  // `sysfs`: where Linux tells which CPUs are near a device.
  DeviceTable(gpu::Api& api, Clock& clock, std::string sysfs = "/sys")
      : api_(api), clock_(clock), sysfs_(std::move(sysfs)), registered_(api) {}

  gpu::Api& api() { return api_; }
  Clock& clock() { return clock_; }

  // By its number among those of CUDA_VISIBLE_DEVICES, "0", or by its UUID, whole or as far as only
  // one has it: "GPU-5a1c", or "MIG-..." for a slice. NOT_FOUND naming what there is;
  // INVALID_ARGUMENT where several have it; else as gpu::Device::Open. This thread has the device
  // as its current one from then on. The process's threads stay near the first one that is opened
  // (gpu/near_cpus.h): a device's worker has no other.
  struct Found {
    int ordinal = 0;
    gpu::Device* device = nullptr;
    const gpu::RegisteredMemory* registered = nullptr;  // of all devices
  };
  Result<Found> Get(std::string_view name) EXCLUDES(mu_);

  // RegisteredMemory::Register, by way of a device that is open and not lost. Null where there is
  // none: registering opens no device.
  std::shared_ptr<void> PinHostMemory(std::span<uint8_t> memory) EXCLUDES(mu_);

 private:
  Result<int> OrdinalOf(std::string_view name);

  gpu::Api& api_;
  Clock& clock_;
  const std::string sysfs_;

  gpu::RegisteredMemory registered_;  // own synchronisation

  Mutex mu_;
  // Guarded by mu_.
  std::map<int, std::unique_ptr<gpu::Device>> devices_ GUARDED_BY(mu_);
};

}  // namespace penstock::tensorrt
