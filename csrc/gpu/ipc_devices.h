// IpcDevices: memory on this machine's GPUs that other processes export (CUDA IPC), for requests to
// read their inputs from and have their outputs written to.
//
// SharedRegion's copies, for whoever does not copy on the GPU itself (memory/exported_memory.h), go
// through pinned memory of ours on a stream of their own, and are waited for: a region is read before
// its batch runs, and written before its answer goes out. One that is not over within the hang limit
// loses the device, as a batch does; what it may still write is ours. Nothing is touched on a GPU
// before the first registration.

#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string_view>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "gpu/completion_thread.h"
#include "gpu/gpu_api.h"
#include "memory/device_regions.h"

namespace penstock::gpu {

class IpcDevice;

struct IpcOptions {
  CompletionOptions completion = {};     // but for its device
  size_t chunk_bytes = size_t{4} << 20;  // of pinned memory, for each thread that copies at a time
};

// Threading: thread-safe.
// Ownership: owns the Api, together with the regions that it opened: those may outlive it.
// Blocking: CheckUsable and Open, the first time for as long as the driver takes to start. Opening and
// closing a client's memory waits for the driver, without a limit.
class IpcDevices final : public DeviceRegions {
 public:
  using OpenApi = std::function<Result<std::unique_ptr<Api>>()>;

  // `open_api` is called once at most, when it is needed; its failure stays: a driver that is
  // installed later needs a new process. Borrows the clock.
  explicit IpcDevices(OpenApi open_api, Clock& clock = Clock::System(),
                      const IpcOptions& options = {});
  ~IpcDevices() override;

  Status CheckUsable() override;
  Result<std::unique_ptr<const SharedRegion>> Open(SharedRegionInfo info,
                                                   std::string_view handle) override;

 private:
  Status OpenApiLocked() REQUIRES(mu_);
  Result<std::shared_ptr<IpcDevice>> Find(const SharedRegionInfo& info) EXCLUDES(mu_);

  // Constant after construction.
  const OpenApi open_api_;
  Clock& clock_;
  const IpcOptions options_;

  Mutex mu_;
  // Guarded by mu_.
  Status why_not_ GUARDED_BY(mu_);  // OK: not tried, or it is open
  std::shared_ptr<Api> api_ GUARDED_BY(mu_);
  std::map<int, std::shared_ptr<IpcDevice>> devices_ GUARDED_BY(mu_);
};

}  // namespace penstock::gpu
