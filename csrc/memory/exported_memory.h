// ExportedMemory: a client's memory on a GPU, for who copies from and to it on the device itself.
//
// A process that has opened it says where; any other opens it by its handle. So a device worker needs
// no more of a region than these bytes: handle, device, size.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "base/mutex.h"

namespace penstock {

// Threading: thread-safe.
// Ownership: borrows `data` from the region that it is part of. Owns what was opened of it, by
// whichever device, until it goes: the region is unregistered then, and its last batch is over.
class ExportedMemory {
 public:
  using Handle = std::array<uint8_t, 64>;  // a cudaIpcMemHandle_t

  // What a device has opened of a memory; its destructor closes that.
  class Opened {
   public:
    virtual ~Opened() = default;
  };

  // `data`: where this process has it, on GPU `device` as this process numbers them. Null: it has
  // not; `device` is then as the exporter's server numbers them.
  ExportedMemory(const Handle& handle, int device, uint64_t size_bytes, void* data)
      : handle_(handle), device_(device), size_bytes_(size_bytes), data_(data) {}
  ExportedMemory(const ExportedMemory&) = delete;
  ExportedMemory& operator=(const ExportedMemory&) = delete;

  const Handle& handle() const { return handle_; }
  int device() const { return device_; }
  uint64_t size_bytes() const { return size_bytes_; }
  uint8_t* data() const { return static_cast<uint8_t*>(data_); }

  // What `opener` has of it: by `open`, which is called once for each opener, and whose null (it does
  // not open) stays as well. Each opener outlives the memory.
  // Blocking: while it is opened, by whomever.
  const Opened* OpenedBy(const void* opener,
                         const std::function<std::unique_ptr<Opened>()>& open) const EXCLUDES(mu_) {
    MutexLock lock(mu_);
    auto found = opened_.find(opener);
    if (found == opened_.end()) found = opened_.emplace(opener, open()).first;
    return found->second.get();
  }

 private:
  // Constant after construction.
  const Handle handle_;
  const int device_;
  const uint64_t size_bytes_;
  void* const data_;

  mutable Mutex mu_;
  // Guarded by mu_.
  mutable std::map<const void*, std::unique_ptr<Opened>> opened_ GUARDED_BY(mu_);
};

// Some bytes of a client's memory on a GPU.
// Ownership: holds the memory: the region cannot be closed meanwhile.
struct DevicePart {
  std::shared_ptr<const ExportedMemory> memory;
  uint64_t offset = 0;
  uint64_t size_bytes = 0;  // from there on, within the memory
};

}  // namespace penstock
