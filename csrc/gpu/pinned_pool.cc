#include "gpu/pinned_pool.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "base/strcat.h"

namespace penstock::gpu {
namespace {

using BlockClass = PinnedPool::BlockClass;

// Rounds sizes up, sorts, and joins what is equal then. INVALID_ARGUMENT where the sum is no size.
Status Normalise(std::vector<BlockClass>* classes, size_t* total_bytes) {
  for (BlockClass& c : *classes) {
    const size_t rounded = (c.block_bytes + PinnedPool::kAlignment - 1) / PinnedPool::kAlignment *
                           PinnedPool::kAlignment;
    size_t bytes = 0;
    if (c.blocks == 0 || rounded < c.block_bytes || rounded == 0 ||
        __builtin_mul_overflow(rounded, c.blocks, &bytes) ||
        __builtin_add_overflow(*total_bytes, bytes, total_bytes)) {
      return InvalidArgument(StrCat("no pinned pool of ", c.blocks, " blocks of ", c.block_bytes,
                                    " bytes can be made"));
    }
    c.block_bytes = rounded;
  }
  std::sort(classes->begin(), classes->end(),
            [](const BlockClass& a, const BlockClass& b) { return a.block_bytes < b.block_bytes; });
  for (size_t i = 1; i < classes->size();) {
    if ((*classes)[i - 1].block_bytes != (*classes)[i].block_bytes) {
      ++i;
      continue;
    }
    (*classes)[i - 1].blocks += (*classes)[i].blocks;
    classes->erase(classes->begin() + static_cast<ptrdiff_t>(i));
  }
  return *total_bytes > 0 ? Status::Ok() : InvalidArgument("a pinned pool needs a class of blocks");
}

}  // namespace

Result<std::unique_ptr<PinnedPool>> PinnedPool::Create(Api& api, DeviceHealth& health,
                                                       std::vector<BlockClass> classes) {
  size_t size_bytes = 0;
  PENSTOCK_RETURN_IF_ERROR(Normalise(&classes, &size_bytes));
  void* memory = nullptr;
  PENSTOCK_RETURN_IF_ERROR(health.Check(api.AllocatePinned(size_bytes, &memory),
                                        StrCat("pin ", size_bytes, " bytes of host memory")));
  return std::unique_ptr<PinnedPool>(
      new PinnedPool(api, health, std::move(classes), {memory, size_bytes}));
}

PinnedPool::PinnedPool(Api& api, DeviceHealth& health, std::vector<BlockClass> classes,
                       std::pair<void*, size_t> memory)
    : api_(api),
      health_(health),
      memory_(memory.first),
      size_bytes_(memory.second),
      classes_(std::move(classes)) {
  auto* next = static_cast<uint8_t*>(memory_);
  MutexLock lock(mu_);
  for (const BlockClass& c : classes_) {
    auto& list = free_.emplace_back();
    for (size_t i = 0; i < c.blocks; ++i, next += c.block_bytes) list.push_back(next);
    blocks_ += c.blocks;
  }
}

PinnedPool::~PinnedPool() {
  {
    MutexLock lock(mu_);
    assert(in_use_ == 0);
  }
  if (!health_.is_faulted()) static_cast<void>(api_.FreePinned(memory_));
}

Status PinnedPool::CheckSize(size_t size_bytes) const {
  const size_t largest = classes_.back().block_bytes;
  if (size_bytes > 0 && size_bytes <= largest) return Status::Ok();
  return InvalidArgument(
      StrCat("pinned blocks hold 1 to ", largest, " bytes, expected so, got ", size_bytes));
}

uint8_t* PinnedPool::Take(size_t size_bytes, size_t* block_bytes) {
  for (size_t i = 0; i < classes_.size(); ++i) {
    if (classes_[i].block_bytes < size_bytes || free_[i].empty()) continue;
    uint8_t* block = free_[i].back();
    free_[i].pop_back();
    ++in_use_;
    *block_bytes = classes_[i].block_bytes;
    return block;
  }
  return nullptr;
}

Buffer PinnedPool::Wrap(uint8_t* block, size_t size_bytes, size_t block_bytes) {
  return {block, size_bytes, block_bytes, &GiveBack, this};
}

Result<Buffer> PinnedPool::TryAcquire(size_t size_bytes) {
  PENSTOCK_RETURN_IF_ERROR(CheckSize(size_bytes));
  size_t block_bytes = 0;
  MutexLock lock(mu_);
  uint8_t* block = Take(size_bytes, &block_bytes);
  if (block != nullptr) return Wrap(block, size_bytes, block_bytes);
  ++exhausted_;
  return ResourceExhausted(StrCat("no pinned block of ", size_bytes, " bytes is left, ", in_use_,
                                  " of ", blocks_, " blocks are in use"));
}

void PinnedPool::GiveBack(void* pool, void* block, size_t block_bytes) noexcept {
  auto& self = *static_cast<PinnedPool*>(pool);
  MutexLock lock(self.mu_);
  const auto its = std::find_if(self.classes_.begin(), self.classes_.end(),
                                [=](const BlockClass& c) { return c.block_bytes == block_bytes; });
  assert(its != self.classes_.end());
  self.free_[static_cast<size_t>(its - self.classes_.begin())].push_back(
      static_cast<uint8_t*>(block));
  --self.in_use_;
}

PinnedPool::Usage PinnedPool::usage() const {
  MutexLock lock(mu_);
  return {blocks_, in_use_, size_bytes_, exhausted_};
}

}  // namespace penstock::gpu
