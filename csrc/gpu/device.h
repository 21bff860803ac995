// Device: one GPU of this process, and what its models share.

#pragma once

#include <memory>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "gpu/completion_thread.h"
#include "gpu/device_health.h"
#include "gpu/gpu_api.h"
#include "gpu/ipc_imports.h"
#include "gpu/lane_group.h"
#include "gpu/pinned_pool.h"

namespace penstock::gpu {

struct DeviceOptions {
  // See PinnedPool; empty: it has none, and models bring their own.
  std::vector<PinnedPool::BlockClass> pinned = {};
  CompletionOptions completion = {};  // which device, among others
};

// Threading: thread-safe. The thread that opens it has it as its current device; other threads that
// load or submit call Api::SetDevice themselves, unless it is the first one, which is everybody's.
// Ownership: borrows Api and clock.
// Lifecycle: outlives its LaneGroups; the destructor waits for what is in flight.
class Device {
 public:
  // Takes the device and all of its pinned memory. UNAVAILABLE or INTERNAL where the device cannot be
  // used, RESOURCE_EXHAUSTED where there is not so much pinned memory.
  static Result<std::unique_ptr<Device>> Open(Api& api, Clock& clock, const DeviceOptions& options);
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const DeviceProperties& properties() const { return properties_; }
  DeviceHealth& health() { return health_; }
  PinnedPool& pool() { return *pool_; }  // REQUIRES: it has one
  CompletionThread& completion() { return *completion_; }
  // Whether it is not lost, by a harmless call, as this thread's current device.
  bool Answers();
  IpcImports& imports() { return imports_; }
  int ordinal() const { return ordinal_; }
  Api& api() { return api_; }
  DeviceResources resources() { return resources(*pool_); }  // REQUIRES: it has a pool
  // With a pool of the caller's, which outlives who is given it.
  DeviceResources resources(PinnedPool& pool) {
    return {api_, health_, *completion_, pool, clock_, ordinal_};
  }

 private:
  Device(Api& api, Clock& clock, const DeviceOptions& options);

  Status Start(const DeviceOptions& options);

  Api& api_;
  Clock& clock_;
  const int ordinal_;
  DeviceHealth health_;
  IpcImports imports_;
  DeviceProperties properties_;
  std::unique_ptr<PinnedPool> pool_;
  std::unique_ptr<CompletionThread> completion_;
};

}  // namespace penstock::gpu
