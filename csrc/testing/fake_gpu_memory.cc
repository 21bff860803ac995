// The fake GPU's memory: blocks on the device, pinned ones, and those of other processes.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <utility>

#include "testing/fake_gpu.h"

namespace penstock {
namespace {

using gpu::Error;
using gpu::IsSticky;

constexpr size_t kAlignment = 256;

void* AllocateFilled(size_t size_bytes) {
  void* data = nullptr;
  if (posix_memalign(&data, kAlignment, size_bytes) != 0) throw std::bad_alloc();
  std::memset(data, 0xa5, size_bytes);  // nobody may count on what is in new memory
  return data;
}

// Null where there is no such object, or nothing in it.
void* MapObject(const std::string& key, size_t* size_bytes) {
  const int fd = shm_open(key.c_str(), O_RDWR | O_CLOEXEC, 0);
  if (fd < 0) return nullptr;
  struct stat found {};
  void* data = MAP_FAILED;
  if (fstat(fd, &found) == 0 && found.st_size > 0) {
    *size_bytes = static_cast<size_t>(found.st_size);
    data = mmap(nullptr, *size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  close(fd);
  return data == MAP_FAILED ? nullptr : data;
}

}  // namespace

Error FakeGpu::Allocate(const Block& block, void** data) {
  if (block.size_bytes == 0) return Answer(Error::kInvalidValue);
  const bool on_device = block.kind == Memory::kDevice;
  if (on_device && block.size_bytes > options_.memory_bytes - live_bytes_ + pooled_bytes_) {
    return Answer(Error::kMemoryAllocation);
  }
  if (on_device) {
    const size_t again_bytes = std::min(pooled_bytes_, block.size_bytes);
    pooled_bytes_ -= again_bytes;
    live_bytes_ += block.size_bytes - again_bytes;
  }
  *data = AllocateFilled(block.size_bytes);
  checker_.Forget({*data, block.size_bytes});
  blocks_.emplace(reinterpret_cast<uintptr_t>(*data), block);
  return Error::kSuccess;
}

Error FakeGpu::Forget(void* data, Memory kind) {
  const auto found = blocks_.find(reinterpret_cast<uintptr_t>(data));
  if (found == blocks_.end() || found->second.kind != kind) return Answer(Error::kInvalidValue);
  if (kind == Memory::kDevice) live_bytes_ -= found->second.size_bytes;
  blocks_.erase(found);
  return Error::kSuccess;
}

const FakeGpu::Block* FakeGpu::FindBlock(const void* data, size_t size_bytes) const {
  const auto address = reinterpret_cast<uintptr_t>(data);
  auto found = blocks_.upper_bound(address);
  if (found == blocks_.begin()) return nullptr;
  --found;
  const auto& [begin, block] = *found;
  const size_t offset = address - begin;
  const bool is_within = offset <= block.size_bytes && size_bytes <= block.size_bytes - offset;
  return is_within ? &block : nullptr;
}

std::optional<int> FakeGpu::HolderOf(const void* data, size_t size_bytes) const {
  const Block* block = FindBlock(data, size_bytes);
  return block == nullptr ? std::nullopt : std::optional<int>(block->device);
}

bool FakeGpu::IsOnDevice(const void* data) const {
  MutexLock lock(mu_);
  const std::optional<int> holder = HolderOf(data, 1);
  return holder.has_value() && *holder != kHost;
}

bool FakeGpu::Overlaps(const void* data, size_t size_bytes) const {
  const auto begin = reinterpret_cast<uintptr_t>(data);
  return std::any_of(blocks_.begin(), blocks_.end(), [&](const auto& each) {
    return each.first < begin + size_bytes && begin < each.first + each.second.size_bytes;
  });
}

void FakeGpu::Free(void* data, const Block& block) {
  if (block.kind == Memory::kImported) {
    munmap(data, block.size_bytes);
  } else if (block.kind != Memory::kRegistered) {
    std::free(data);
  }
}

void FakeGpu::RefuseIpcOn(int device) {
  MutexLock lock(mu_);
  refusing_device_ = device;
}

Error FakeGpu::RegisterHost(void* data, size_t size_bytes) {
  MutexLock lock(mu_);
  if (const Error error = EnterUnsafe(__func__); error != Error::kSuccess) return error;
  if (data == nullptr || size_bytes == 0) return Answer(Error::kInvalidValue);
  if (Overlaps(data, size_bytes)) return Answer(Error::kHostMemoryAlreadyRegistered);
  blocks_.emplace(reinterpret_cast<uintptr_t>(data), Block{size_bytes, Memory::kRegistered});
  return Error::kSuccess;
}

Error FakeGpu::UnregisterHost(void* data) {
  MutexLock lock(mu_);
  const Error error = EnterUnsafe(__func__);
  if (error != Error::kSuccess && !IsSticky(error)) return error;
  if (Forget(data, Memory::kRegistered) != Error::kSuccess) {
    return Answer(Error::kHostMemoryNotRegistered);
  }
  return error;
}

Error FakeGpu::OpenIpcMemory(const gpu::IpcHandle& handle, void** data, size_t* size_bytes) {
  MutexLock lock(mu_);
  if (const Error error = EnterUnsafe(__func__); error != Error::kSuccess) return error;
  if (CurrentDevice() == refusing_device_) return Answer(Error::kInvalidValue);
  const std::string key(handle.begin(), std::find(handle.begin(), handle.end(), 0));
  void* mapped = MapObject(key, size_bytes);
  if (mapped == nullptr) return Answer(Error::kInvalidValue);
  blocks_.emplace(reinterpret_cast<uintptr_t>(mapped),
                  Block{*size_bytes, Memory::kImported, CurrentDevice()});
  *data = mapped;
  return Error::kSuccess;
}

Error FakeGpu::CloseIpcMemory(void* data) {
  MutexLock lock(mu_);
  const Error error = EnterUnsafe(__func__);
  if (error != Error::kSuccess && !IsSticky(error)) return error;
  const auto found = blocks_.find(reinterpret_cast<uintptr_t>(data));
  if (found == blocks_.end()) return Answer(Error::kInvalidValue);
  const Block block = found->second;
  if (const Error gone = Forget(data, Memory::kImported); gone != Error::kSuccess) return gone;
  Free(data, block);
  return error;
}

Error FakeGpu::AllocatePinned(size_t size_bytes, void** data) {
  MutexLock lock(mu_);
  if (const Error error = EnterUnsafe(__func__); error != Error::kSuccess) return error;
  return Allocate({size_bytes, Memory::kPinned}, data);
}

Error FakeGpu::FreePinned(void* data) {
  MutexLock lock(mu_);
  const Error error = EnterUnsafe(__func__);
  if (error != Error::kSuccess && !IsSticky(error)) return error;
  if (const Error gone = Forget(data, Memory::kPinned); gone != Error::kSuccess) return gone;
  std::free(data);
  return error;
}

Error FakeGpu::AllocateAsync(size_t size_bytes, gpu::Stream stream, void** data) {
  MutexLock lock(mu_);
  if (const Error error = EnterUnsafe(__func__); error != Error::kSuccess) return error;
  const StreamState* found = Find(stream);
  if (found == nullptr) return Answer(Error::kInvalidResourceHandle);
  return Allocate({size_bytes, Memory::kDevice, found->device}, data);
}

Error FakeGpu::FreeAsync(void* data, gpu::Stream stream) {
  MutexLock lock(mu_);
  const Error error = EnterUnsafe(__func__);
  if (error != Error::kSuccess && !IsSticky(error)) return error;
  StreamState* found = Find(stream);
  if (found == nullptr) return Answer(Error::kInvalidResourceHandle);
  const auto block = blocks_.find(reinterpret_cast<uintptr_t>(data));
  const size_t size_bytes = block == blocks_.end() ? 0 : block->second.size_bytes;
  if (const Error gone = Forget(data, Memory::kDevice); gone != Error::kSuccess) return gone;
  live_bytes_ += size_bytes;
  pooled_bytes_ += size_bytes;
  checker_.Enqueue(found->id, {}, {{data, size_bytes}});
  found->stream->PushRelease([data] { std::free(data); });
  return error;
}

}  // namespace penstock
