// SharedMemory: the regions of memory that clients have registered, by name. The system's and those
// of GPUs have one space of names.

#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "memory/device_regions.h"
#include "memory/region_closer.h"
#include "memory/shared_region.h"

namespace penstock {

// Threading: thread-safe.
// Ownership: owns one reference to each region, requests that use it hold others: a region that is
// unregistered loses its name at once and its file when the last of them is done.
// Blocking: registering opens a file or a GPU, Unregister waits for what is being closed of its kind;
// never while holding the lock. Dropping a region never blocks: see RegionCloser.
class SharedMemory {
 public:
  struct Options {
    bool is_allowed = false;  // else every call is UNIMPLEMENTED: the operator has not opted in
    size_t max_request_bytes = 0;  // of one request's inputs in shared memory; 0 = unlimited
    size_t max_regions = 512;      // each holds a file descriptor, or a mapping of a GPU's memory
    std::shared_ptr<DeviceRegions> devices = nullptr;  // null: this program knows no GPUs
  };
  static constexpr size_t kMaxNameBytes = 1024;

  explicit SharedMemory(Options options);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // A region of system shared memory.
  // Status: as SystemRegion::Open; ALREADY_EXISTS "shared memory region 'n' already in manager",
  // for an equal registration too; RESOURCE_EXHAUSTED at max_regions.
  Status Register(SharedRegionInfo info);
  // A region of a GPU's memory, by the bytes of its cudaIpcMemHandle_t.
  // Status: as DeviceRegions::Open, and as above; INVALID_ARGUMENT "failed to register CUDA shared
  // memory region: 'n', GPUs not supported: <why>" where there is no GPU to use.
  Status RegisterCuda(SharedRegionInfo info, std::string_view handle);
  // Forgets `name`, or with "" every region, of that kind. A name that is not there is no error.
  Status Unregister(RegionKind kind, std::string_view name);
  // What is registered of that kind, by name; with a `name` that one, or NOT_FOUND.
  Result<std::vector<SharedRegionInfo>> List(RegionKind kind, std::string_view name) const;

  // UNIMPLEMENTED unless is_allowed.
  Status CheckAllowed() const;
  // Whether RegisterCuda can be of use; otherwise UNAVAILABLE says why, or UNIMPLEMENTED as above.
  Status CheckCudaUsable() const;
  // The region for a request to use; null where there is none of that name.
  Result<std::shared_ptr<const SharedRegion>> Find(std::string_view name) const;

  const Options& options() const { return options_; }

  RegionCloser& TestOnlyCloser(RegionKind kind) { return *CloserOf(kind); }

 private:
  using Regions = std::map<std::string, std::shared_ptr<const SharedRegion>, std::less<>>;
  using Open = std::function<Result<std::unique_ptr<const SharedRegion>>(SharedRegionInfo)>;

  std::shared_ptr<RegionCloser> MakeCloser(const char* thread) const;
  const std::shared_ptr<RegionCloser>& CloserOf(RegionKind kind) const {
    return kind == RegionKind::kCuda ? cuda_closer_ : system_closer_;
  }
  Status RegisterOpened(SharedRegionInfo info, const Open& open);
  Status CheckNameLocked(const std::string& name) const REQUIRES(mu_);

  // Constant after construction.
  const Options options_;
  const std::shared_ptr<RegionPlaces> places_;  // shared: with the closers
  // Shared: with each region of their kind. Null if not allowed.
  const std::shared_ptr<RegionCloser> system_closer_;
  const std::shared_ptr<RegionCloser> cuda_closer_;

  mutable Mutex mu_;
  // Guarded by mu_.
  Regions regions_ GUARDED_BY(mu_);
};

}  // namespace penstock
