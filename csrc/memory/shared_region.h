// SharedRegion: a stretch of a client's POSIX shared memory, read and written by file operations.
//
// It is never mapped: whoever owns the memory may shrink it at any time, and touching a page that
// is gone would kill the server (SIGBUS). A read that comes short is an error of one request.

#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/status.h"

namespace penstock {

class RegionCloser;

// What a client registered.
struct SharedRegionInfo {
  std::string name;         // how requests call it
  std::string key;          // of shm_open
  uint64_t offset = 0;      // in the shared memory object, where the region begins
  uint64_t size_bytes = 0;  // of the region
};

// Threading: thread-safe. What others write meanwhile is seen in parts: a reader that checks must
// check its own copy.
// Ownership: owns the file descriptor, closed behind the last reference by `closer`. Shared, because a request
// goes on using its region after the name was unregistered.
// Blocking: Read and Write copy; a page that was swapped out is waited for.
class SharedRegion {
 public:
  // Opens the object and checks that the region lies within it. An object that is no regular file
  // is refused, and no link is followed.
  // Status: INVALID_ARGUMENT "failed to register shared memory region 'n': invalid args..." for a
  // key or bounds that cannot be; INTERNAL "Unable to open shared memory region: 'k'";
  // RESOURCE_EXHAUSTED when the process may open no more files.
  // REQUIRES: a place with the closer, which the region leaves once it is closed.
  static Result<std::shared_ptr<const SharedRegion>> Open(SharedRegionInfo info,
                                                          std::shared_ptr<RegionCloser> closer);
  ~SharedRegion();
  SharedRegion(const SharedRegion&) = delete;
  SharedRegion& operator=(const SharedRegion&) = delete;

  const SharedRegionInfo& info() const { return info_; }

  // Whether these bytes lie within the region as it was registered. No sum overflows.
  bool Contains(uint64_t offset, uint64_t size_bytes) const {
    return offset <= info_.size_bytes && size_bytes <= info_.size_bytes - offset;
  }

  // Copies out.size() bytes from `offset` (in the region). REQUIRES: Contains them.
  // Status: INVALID_ARGUMENT where the object has meanwhile become too small.
  Status Read(uint64_t offset, std::span<uint8_t> out) const;
  // Copies `data` to `offset`. An object that has become too small is left alone: writing would
  // enlarge it. REQUIRES and Status as above; INTERNAL where the system has no memory for it.
  Status Write(uint64_t offset, std::span<const uint8_t> data) const;

 private:
  friend class RegionCloser;

  SharedRegion(SharedRegionInfo info, int fd);

  Status TooSmall(uint64_t needed_bytes, uint64_t found_bytes) const;

  // Constant after construction.
  const SharedRegionInfo info_;
  const int fd_;

  mutable const SharedRegion* next_closing_ = nullptr;  // the closer's, once nobody else has it
};

}  // namespace penstock
