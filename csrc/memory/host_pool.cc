#include "memory/host_pool.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <new>

namespace penstock {
namespace {

void* AllocateAligned(size_t size_bytes) {
  void* data = std::aligned_alloc(HostPool::kAlignment, size_bytes);
  if (data == nullptr) throw std::bad_alloc();
  return data;
}

void ReleaseToSystem(void* /*context*/, void* data, size_t /*capacity_bytes*/) noexcept {
  std::free(data);
}

size_t RoundUp(size_t size_bytes, size_t alignment) {
  if (size_bytes > SIZE_MAX - alignment) throw std::bad_alloc();
  return (size_bytes + alignment - 1) / alignment * alignment;
}

}  // namespace

HostPool::HostPool(size_t max_idle_bytes) : max_idle_bytes_(max_idle_bytes) {
  // A free list never grows beyond this, so that releasing a buffer cannot fail to allocate.
  MutexLock lock(mu_);
  for (auto& list : idle_) list.reserve(kMaxIdleOfAClass);
}

HostPool::~HostPool() {
  MutexLock lock(mu_);
  for (auto& list : idle_) {
    for (void* data : list) std::free(data);
  }
}

Buffer HostPool::Allocate(size_t size_bytes) {
  if (size_bytes == 0) return {};
  const size_t bits = std::max<size_t>(std::bit_width(size_bytes - 1), kMinClassBits);
  if (bits > kMaxClassBits) {
    const size_t capacity = RoundUp(size_bytes, kAlignment);
    return {AllocateAligned(capacity), size_bytes, capacity, &ReleaseToSystem, nullptr};
  }
  void* data = TakeIdle(bits - kMinClassBits);
  const size_t capacity = size_t{1} << bits;
  if (data == nullptr) data = AllocateAligned(capacity);
  return {data, size_bytes, capacity, &ReleaseToPool, this};
}

size_t HostPool::idle_bytes() const {
  MutexLock lock(mu_);
  return idle_bytes_;
}

HostPool& HostPool::Shared() {
  static auto& pool = *new HostPool();  // NOLINT: never destroyed, buffers may outlive main
  return pool;
}

void HostPool::ReleaseToPool(void* context, void* data, size_t capacity_bytes) noexcept {
  const size_t size_class = std::bit_width(capacity_bytes) - 1 - kMinClassBits;
  if (!static_cast<HostPool*>(context)->KeepIdle(size_class, data)) std::free(data);
}

void* HostPool::TakeIdle(size_t size_class) {
  MutexLock lock(mu_);
  auto& list = idle_[size_class];
  if (list.empty()) return nullptr;
  void* data = list.back();
  list.pop_back();
  idle_bytes_ -= size_t{1} << (size_class + kMinClassBits);
  return data;
}

bool HostPool::KeepIdle(size_t size_class, void* data) noexcept {
  const size_t capacity = size_t{1} << (size_class + kMinClassBits);
  MutexLock lock(mu_);
  auto& list = idle_[size_class];
  if (idle_bytes_ + capacity > max_idle_bytes_ || list.size() == list.capacity()) return false;
  list.push_back(data);
  idle_bytes_ += capacity;
  return true;
}

}  // namespace penstock
