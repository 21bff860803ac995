// HostPool: aligned host memory that is used again, for batch slabs and decoded inputs.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/mutex.h"
#include "tensor/buffer.h"

namespace penstock {

// Buffers in power-of-two size classes from 256 B to 64 MiB, aligned to kAlignment; larger ones go
// straight to the system and back. At most `max_idle_bytes` lie idle in the pool; beyond that a
// released buffer is freed, so a burst does not become resident for ever.
//
// Threading: thread-safe.
// Ownership: buffers handed out hold the pool's address: the pool outlives them (Shared() always
// does).
// Blocking: Allocate may enter the system allocator; never while holding a lock.
class HostPool {
 public:
  static constexpr size_t kAlignment = 64;
  static constexpr size_t kDefaultMaxIdleBytes = 64 << 20;

  explicit HostPool(size_t max_idle_bytes = kDefaultMaxIdleBytes);
  ~HostPool();
  HostPool(const HostPool&) = delete;
  HostPool& operator=(const HostPool&) = delete;

  // A buffer of `size_bytes` bytes, contents undefined; an empty one for 0.
  // Throws std::bad_alloc when the system has no memory: a batch that meets it fails, see Instance.
  Buffer Allocate(size_t size_bytes);

  // Bytes lying idle now.
  size_t idle_bytes() const;

  // The process-wide pool; never destroyed.
  static HostPool& Shared();

 private:
  static constexpr size_t kMinClassBits = 8;
  static constexpr size_t kMaxClassBits = 26;
  // Small messages come by the hundred.
  static constexpr size_t kMaxIdleOfAClass = 1024;

  static void ReleaseToPool(void* context, void* data, size_t capacity_bytes) noexcept;
  void* TakeIdle(size_t size_class);
  bool KeepIdle(size_t size_class, void* data) noexcept;

  // Constant after construction.
  const size_t max_idle_bytes_;

  mutable Mutex mu_;
  // Guarded by mu_.
  size_t idle_bytes_ GUARDED_BY(mu_) = 0;
  std::array<std::vector<void*>, kMaxClassBits - kMinClassBits + 1> idle_ GUARDED_BY(mu_);
};

}  // namespace penstock
