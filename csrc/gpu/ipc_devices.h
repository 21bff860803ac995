// IpcDevices: memory on this machine's GPUs that other processes export (CUDA IPC), for requests to
// read their inputs from and have their outputs written to.
//
// A copy is enqueued on a stream of its own and waited for: a region is read before its batch runs,
// and written before its answer goes out. Nothing is touched on a GPU before the first
// registration.

#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string_view>

#include "base/mutex.h"
#include "base/status.h"
#include "gpu/gpu_api.h"
#include "memory/device_regions.h"

namespace penstock::gpu {

class IpcDevice;

// Threading: thread-safe.
// Ownership: owns the Api, together with the regions that it opened: those may outlive it.
// Blocking: CheckUsable and Open, the first time for as long as the driver takes to start.
class IpcDevices final : public DeviceRegions {
 public:
  using OpenApi = std::function<Result<std::unique_ptr<Api>>()>;

  // `open_api` is called once at most, when it is needed; its failure stays: a driver that is
  // installed later needs a new process.
  explicit IpcDevices(OpenApi open_api);
  ~IpcDevices() override;

  Status CheckUsable() override;
  Result<std::unique_ptr<const SharedRegion>> Open(SharedRegionInfo info,
                                                   std::string_view handle) override;

 private:
  Status OpenApiLocked() REQUIRES(mu_);
  Result<std::shared_ptr<IpcDevice>> Find(const SharedRegionInfo& info) EXCLUDES(mu_);

  // Constant after construction.
  const OpenApi open_api_;

  Mutex mu_;
  // Guarded by mu_.
  Status why_not_ GUARDED_BY(mu_);  // OK: not tried, or it is open
  std::shared_ptr<Api> api_ GUARDED_BY(mu_);
  std::map<int, std::shared_ptr<IpcDevice>> devices_ GUARDED_BY(mu_);
};

}  // namespace penstock::gpu
