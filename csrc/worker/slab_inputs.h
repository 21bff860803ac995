// SlabInputs: memory to gather a batch's inputs into, where a worker sees it.

#pragma once

#include "tensor/buffer.h"
#include "worker/slab.h"

namespace penstock {

// Threading: confined to its instance's thread.
// Ownership: owns the slabs; the buffers that it hands out go before it.
class SlabInputs {
 public:
  // Throws std::bad_alloc where the system has no memory for it.
  Buffer Allocate(size_t size_bytes);
  // A batch begins: whatever became of the last one, once its inputs were released their memory is
  // free.
  void Begin() {
    if (held_ == 0) arena_.Reset();
  }
  SlabArena* arena() { return &arena_; }

 private:
  static void Release(void* context, void* data, size_t capacity_bytes) noexcept;

  SlabArena arena_;
  size_t held_ = 0;  // of Allocate, not released yet
};

}  // namespace penstock
