#include "gpu/pinned_pool.h"

#include <cassert>

#include "base/strcat.h"

namespace penstock::gpu {

Result<std::unique_ptr<PinnedPool>> PinnedPool::Create(Api& api, DeviceHealth& health,
                                                       size_t block_bytes, size_t blocks) {
  const size_t rounded = (block_bytes + kAlignment - 1) / kAlignment * kAlignment;
  size_t size_bytes = 0;
  if (block_bytes == 0 || blocks == 0 || rounded < block_bytes ||
      __builtin_mul_overflow(rounded, blocks, &size_bytes)) {
    return InvalidArgument(
        StrCat("no pinned pool of ", blocks, " blocks of ", block_bytes, " bytes can be made"));
  }
  void* memory = nullptr;
  PENSTOCK_RETURN_IF_ERROR(health.Check(api.AllocatePinned(size_bytes, &memory),
                                        StrCat("pin ", size_bytes, " bytes of host memory")));
  return std::unique_ptr<PinnedPool>(new PinnedPool(api, health, memory, rounded, blocks));
}

PinnedPool::PinnedPool(Api& api, DeviceHealth& health, void* memory, size_t block_bytes,
                       size_t blocks)
    : api_(api), health_(health), memory_(memory), block_bytes_(block_bytes), blocks_(blocks) {
  MutexLock lock(mu_);
  for (size_t i = 0; i < blocks; ++i) {
    free_.push_back(static_cast<uint8_t*>(memory) + i * block_bytes);
  }
}

PinnedPool::~PinnedPool() {
  {
    MutexLock lock(mu_);
    assert(free_.size() == blocks_);
  }
  if (!health_.is_faulted()) static_cast<void>(api_.FreePinned(memory_));
}

Result<Buffer> PinnedPool::TryAcquire(size_t size_bytes) {
  if (size_bytes == 0 || size_bytes > block_bytes_) {
    return InvalidArgument(
        StrCat("pinned blocks hold 1 to ", block_bytes_, " bytes, expected so, got ", size_bytes));
  }
  MutexLock lock(mu_);
  if (free_.empty()) {
    return ResourceExhausted(
        StrCat("no pinned block of ", size_bytes, " bytes is left, all ", blocks_, " are in use"));
  }
  uint8_t* const block = free_.back();
  free_.pop_back();
  return Buffer(block, size_bytes, block_bytes_, &GiveBack, this);
}

void PinnedPool::GiveBack(void* pool, void* block, size_t /*block_bytes*/) noexcept {
  auto& self = *static_cast<PinnedPool*>(pool);
  MutexLock lock(self.mu_);
  self.free_.push_back(static_cast<uint8_t*>(block));
}

}  // namespace penstock::gpu
