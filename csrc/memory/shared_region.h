// SharedRegion: a stretch of a client's memory that requests place tensors in, by its name.
//
// Two kinds: of the system's shared memory (memory/system_region.h), and of a GPU's memory
// (gpu/ipc_devices.h).

#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"

namespace penstock {

class ExportedMemory;
class RegionCloser;

enum class RegionKind { kSystem, kCuda };

// What a client registered.
struct SharedRegionInfo {
  std::string name;  // how requests call it
  RegionKind kind = RegionKind::kSystem;
  std::string key = {};     // kSystem: of shm_open
  uint64_t offset = 0;      // kSystem: in the shared memory object, where the region begins
  int64_t device_id = 0;    // kCuda: the GPU that its memory is on, as this process numbers them
  uint64_t size_bytes = 0;  // of the region
};

// INVALID_ARGUMENT "failed to register shared memory region 'n': invalid args: <why>".
Status InvalidRegion(const SharedRegionInfo& info, std::string_view why);

// Threading: thread-safe. What others write meanwhile is seen in parts: a reader that checks must
// check its own copy.
// Ownership: owns what gives it its memory. Shared, because a request goes on using its region
// after the name was unregistered; behind the last reference it is a closer's to destroy.
// Blocking: Read and Write copy, and wait for that.
class SharedRegion {
 public:
  virtual ~SharedRegion() = default;
  SharedRegion(const SharedRegion&) = delete;
  SharedRegion& operator=(const SharedRegion&) = delete;

  // REQUIRES: a place with the closer, which the region leaves once it is closed.
  static std::shared_ptr<const SharedRegion> Share(std::unique_ptr<const SharedRegion> region,
                                                   std::shared_ptr<RegionCloser> closer);

  const SharedRegionInfo& info() const { return info_; }

  // Whether these bytes lie within the region as it was registered. No sum overflows.
  bool Contains(uint64_t offset, uint64_t size_bytes) const {
    return offset <= info_.size_bytes && size_bytes <= info_.size_bytes - offset;
  }

  // kCuda: its memory as backends on GPUs take it; it lives as long as the region. Null: kSystem.
  virtual const ExportedMemory* exported() const { return nullptr; }

  // Copies out.size() bytes from `offset` (in the region). REQUIRES: Contains them.
  virtual Status Read(uint64_t offset, std::span<uint8_t> out) const = 0;
  // Copies `data` to `offset`. REQUIRES: Contains them.
  virtual Status Write(uint64_t offset, std::span<const uint8_t> data) const = 0;

 protected:
  explicit SharedRegion(SharedRegionInfo info) : info_(std::move(info)) {}

 private:
  friend class RegionCloser;

  // Constant after construction.
  const SharedRegionInfo info_;

  mutable const SharedRegion* next_closing_ = nullptr;  // the closer's, once nobody else has it
};

}  // namespace penstock
