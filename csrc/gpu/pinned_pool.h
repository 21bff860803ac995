// PinnedPool: host memory that the device reads and writes by itself, all of it taken at the start.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "gpu/device_health.h"
#include "gpu/gpu_api.h"
#include "tensor/buffer.h"

namespace penstock::gpu {

// Pinning is slow and takes memory from the whole machine, so the pool never grows; and a copy from
// memory that is not pinned waits in silence, so there is nothing else to fall back to. Who finds
// the pool empty is told so: that is back-pressure.
//
// Threading: thread-safe.
// Ownership: owns the memory; its buffers hold the pool's address and go before it (asserted). The
// memory of a lost device, which may still write there, is left to the end of the process.
// Blocking: Create and the destructor may, for long.
class PinnedPool {
 public:
  struct BlockClass {
    size_t block_bytes = 0;
    size_t blocks = 0;
  };
  static constexpr size_t kAlignment = 256;

  // Classes in any order; block sizes are rounded up to kAlignment. RESOURCE_EXHAUSTED where the
  // machine does not give the memory.
  static Result<std::unique_ptr<PinnedPool>> Create(Api& api, DeviceHealth& health,
                                                    std::vector<BlockClass> classes);
  ~PinnedPool();
  PinnedPool(const PinnedPool&) = delete;
  PinnedPool& operator=(const PinnedPool&) = delete;

  // A block of the smallest class that holds `size_bytes` and has one left, contents undefined.
  // Otherwise RESOURCE_EXHAUSTED; INVALID_ARGUMENT where no class ever could, or the size is 0.
  Result<Buffer> TryAcquire(size_t size_bytes) EXCLUDES(mu_);

  struct Usage {
    size_t blocks = 0, blocks_in_use = 0;
    size_t size_bytes = 0;
    uint64_t exhausted = 0;  // how often one was asked for and none was left
  };
  Usage usage() const EXCLUDES(mu_);

 private:
  PinnedPool(Api& api, DeviceHealth& health, std::vector<BlockClass> classes,
             std::pair<void*, size_t> memory);

  Status CheckSize(size_t size_bytes) const;
  uint8_t* Take(size_t size_bytes, size_t* block_bytes) REQUIRES(mu_);
  Buffer Wrap(uint8_t* block, size_t size_bytes, size_t block_bytes);
  static void GiveBack(void* pool, void* block, size_t block_bytes) noexcept;

  // Constant after construction.
  Api& api_;
  DeviceHealth& health_;
  void* const memory_;
  const size_t size_bytes_;
  const std::vector<BlockClass> classes_;  // by rising size
  size_t blocks_ = 0;

  mutable Mutex mu_;
  // Guarded by mu_.
  std::vector<std::vector<uint8_t*>> free_ GUARDED_BY(mu_);  // per class
  size_t in_use_ GUARDED_BY(mu_) = 0;
  uint64_t exhausted_ GUARDED_BY(mu_) = 0;
};

}  // namespace penstock::gpu
