// SystemRegion: a stretch of a client's POSIX shared memory, read and written by file operations.
//
// It is never mapped: whoever owns the memory may shrink it at any time, and touching a page that
// is gone would kill the server (SIGBUS). A read that comes short is an error of one request.

#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "base/status.h"
#include "memory/shared_region.h"

namespace penstock {

// Ownership: owns the file descriptor.
// Blocking: a page that was swapped out is waited for.
class SystemRegion final : public SharedRegion {
 public:
  // Opens the object and checks that the region lies within it. An object that is no regular file
  // is refused, and no link is followed.
  // Status: InvalidRegion for a key or bounds that cannot be; INTERNAL "Unable to open shared
  // memory region: 'k'"; RESOURCE_EXHAUSTED when the process may open no more files.
  static Result<std::unique_ptr<const SharedRegion>> Open(SharedRegionInfo info);
  ~SystemRegion() override;

  // Status: INVALID_ARGUMENT where the object has meanwhile become too small.
  Status Read(uint64_t offset, std::span<uint8_t> out) const override;
  // An object that has become too small is left alone: writing would enlarge it. Status as above;
  // INTERNAL where the system has no memory for it.
  Status Write(uint64_t offset, std::span<const uint8_t> data) const override;

 private:
  SystemRegion(SharedRegionInfo info, int fd) : SharedRegion(std::move(info)), fd_(fd) {}

  Status TooSmall(uint64_t needed_bytes, uint64_t found_bytes) const;

  // Constant after construction.
  const int fd_;
};

}  // namespace penstock
