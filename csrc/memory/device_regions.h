// DeviceRegions: what opens clients' memory on GPUs, as csrc/gpu does it; this folder knows no GPU.

#pragma once

#include <memory>
#include <string_view>

#include "base/status.h"
#include "memory/shared_region.h"

namespace penstock {

// Threading: thread-safe.
// Ownership: shared with the regions that it has opened.
// Blocking: both calls start what they need the first time, which may take seconds.
class DeviceRegions {
 public:
  virtual ~DeviceRegions() = default;

  // UNAVAILABLE with the one reason why no GPU can be used.
  virtual Status CheckUsable() = 0;
  // Opens the memory that another process exports as `handle`, the bytes of a cudaIpcMemHandle_t,
  // and checks that the region lies within it.
  // Status: InvalidRegion for a handle, device or size that cannot be; UNAVAILABLE where there is
  // no GPU, or it is lost.
  virtual Result<std::unique_ptr<const SharedRegion>> Open(SharedRegionInfo info,
                                                           std::string_view handle) = 0;
};

}  // namespace penstock
