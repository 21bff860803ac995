// Device: one GPU of this process, and what its models share.

#pragma once

#include <memory>

#include "base/clock.h"
#include "base/status.h"
#include "gpu/completion_thread.h"
#include "gpu/device_health.h"
#include "gpu/gpu_api.h"
#include "gpu/ipc_imports.h"
#include "gpu/lane_group.h"
#include "gpu/pinned_pool.h"

namespace penstock::gpu {

// Threading: thread-safe. The thread that opens it has it as its current device; other threads that
// load or submit call Api::SetDevice themselves, unless it is the first one, which is everybody's.
// Ownership: borrows Api and clock.
// Lifecycle: outlives its LaneGroups; the destructor waits for what is in flight.
class Device {
 public:
  // Takes the device that `options` names. UNAVAILABLE or INTERNAL where it cannot be used,
  // RESOURCE_EXHAUSTED where it has no memory left for that.
  static Result<std::unique_ptr<Device>> Open(Api& api, Clock& clock,
                                              const CompletionOptions& options);
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const DeviceProperties& properties() const { return properties_; }
  DeviceHealth& health() { return health_; }
  CompletionThread& completion() { return *completion_; }
  // Whether it is not lost, by a harmless call, as this thread's current device.
  bool Answers();
  IpcImports& imports() { return imports_; }
  int ordinal() const { return ordinal_; }
  Api& api() { return api_; }
  // `pool` is the caller's, and outlives who is given this.
  DeviceResources resources(PinnedPool& pool) {
    return {api_, health_, *completion_, pool, clock_, ordinal_};
  }

 private:
  Device(Api& api, Clock& clock, int ordinal);

  Status Start(const CompletionOptions& options);

  Api& api_;
  Clock& clock_;
  const int ordinal_;
  DeviceHealth health_;
  IpcImports imports_;
  DeviceProperties properties_;
  std::unique_ptr<CompletionThread> completion_;
};

}  // namespace penstock::gpu
