// SharedMemory: the regions of system shared memory that clients have registered, by name.

#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "memory/region_closer.h"
#include "memory/shared_region.h"

namespace penstock {

// Threading: thread-safe.
// Ownership: owns one reference to each region, requests that use it hold others: a region that is
// unregistered loses its name at once and its file when the last of them is done.
// Blocking: Register opens a file, Unregister waits for what is being closed; never while holding
// the lock. Dropping a region never blocks: see RegionCloser.
class SharedMemory {
 public:
  struct Options {
    bool is_allowed = false;  // else every call is UNIMPLEMENTED: the operator has not opted in
    size_t max_request_bytes = 0;  // of one request's inputs in shared memory; 0 = unlimited
    size_t max_regions = 512;      // each holds a file descriptor
  };
  static constexpr size_t kMaxNameBytes = 1024;

  explicit SharedMemory(Options options)
      : options_(options),
        closer_(options.is_allowed ? std::make_shared<RegionCloser>() : nullptr) {}
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // Status: as SharedRegion::Open; ALREADY_EXISTS "shared memory region 'n' already in manager",
  // for an equal registration too; RESOURCE_EXHAUSTED at max_regions.
  Status Register(SharedRegionInfo info);
  // Forgets `name`, or with "" every region. A name that is not there is no error.
  Status Unregister(std::string_view name);
  // What is registered, by name; with a `name` that one, or NOT_FOUND.
  Result<std::vector<SharedRegionInfo>> List(std::string_view name) const;

  // UNIMPLEMENTED unless is_allowed.
  Status CheckAllowed() const;
  // The region for a request to use; null where there is none of that name.
  Result<std::shared_ptr<const SharedRegion>> Find(std::string_view name) const;

  const Options& options() const { return options_; }

  RegionCloser& TestOnlyCloser() { return *closer_; }

 private:
  using Regions = std::map<std::string, std::shared_ptr<const SharedRegion>, std::less<>>;

  Status CheckNameLocked(const std::string& name) const REQUIRES(mu_);

  // Constant after construction.
  const Options options_;
  const std::shared_ptr<RegionCloser> closer_;  // shared: with each region; null if not allowed

  mutable Mutex mu_;
  // Guarded by mu_.
  Regions regions_ GUARDED_BY(mu_);
};

}  // namespace penstock
