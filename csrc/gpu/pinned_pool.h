// PinnedPool: host memory that the device reads and writes by itself, all of it taken at the start.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
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
  static constexpr size_t kAlignment = 256;

  // Blocks of one size, which is rounded up to kAlignment. RESOURCE_EXHAUSTED where the machine does
  // not give the memory; INVALID_ARGUMENT where that is none, or more than a size can say.
  static Result<std::unique_ptr<PinnedPool>> Create(Api& api, DeviceHealth& health,
                                                    size_t block_bytes, size_t blocks);
  ~PinnedPool();
  PinnedPool(const PinnedPool&) = delete;
  PinnedPool& operator=(const PinnedPool&) = delete;

  // The first `size_bytes` of a block, contents undefined. RESOURCE_EXHAUSTED where none is left;
  // INVALID_ARGUMENT where no block holds so much, or the size is 0.
  Result<Buffer> TryAcquire(size_t size_bytes) EXCLUDES(mu_);

 private:
  PinnedPool(Api& api, DeviceHealth& health, void* memory, size_t block_bytes, size_t blocks);

  static void GiveBack(void* pool, void* block, size_t block_bytes) noexcept;

  // Constant after construction.
  Api& api_;
  DeviceHealth& health_;
  void* const memory_;
  const size_t block_bytes_;
  const size_t blocks_;

  Mutex mu_;
  // Guarded by mu_.
  std::vector<uint8_t*> free_ GUARDED_BY(mu_);
};

}  // namespace penstock::gpu
