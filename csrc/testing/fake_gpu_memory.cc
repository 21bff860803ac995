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

Error FakeGpu::Allocate(Memory kind, size_t size_bytes, void** data) {
  if (size_bytes == 0) return Answer(Error::kInvalidValue);
  const bool on_device = kind == Memory::kDevice;
  if (on_device && size_bytes > options_.memory_bytes - live_bytes_) {
    return Answer(Error::kMemoryAllocation);
  }
  if (on_device) live_bytes_ += size_bytes;
  *data = AllocateFilled(size_bytes);
  blocks_.emplace(reinterpret_cast<uintptr_t>(*data), Block{size_bytes, kind});
  return Error::kSuccess;
}

Error FakeGpu::Forget(void* data, Memory kind) {
  const auto found = blocks_.find(reinterpret_cast<uintptr_t>(data));
  if (found == blocks_.end() || found->second.kind != kind) return Answer(Error::kInvalidValue);
  if (kind == Memory::kDevice) live_bytes_ -= found->second.size_bytes;
  blocks_.erase(found);
  return Error::kSuccess;
}

bool FakeGpu::Holds(const void* data, size_t size_bytes, bool on_device) const {
  const auto address = reinterpret_cast<uintptr_t>(data);
  auto found = blocks_.upper_bound(address);
  if (found == blocks_.begin()) return false;
  --found;
  const auto& [begin, block] = *found;
  const bool is_device = block.kind != Memory::kPinned;
  const size_t offset = address - begin;
  return is_device == on_device && offset <= block.size_bytes &&
         size_bytes <= block.size_bytes - offset;
}

void FakeGpu::Free(void* data, const Block& block) {
  if (block.kind == Memory::kImported) {
    munmap(data, block.size_bytes);
  } else {
    std::free(data);
  }
}

Error FakeGpu::OpenIpcMemory(const gpu::IpcHandle& handle, void** data, size_t* size_bytes) {
  MutexLock lock(mu_);
  if (const Error error = EnterUnsafe(__func__); error != Error::kSuccess) return error;
  const std::string key(handle.begin(), std::find(handle.begin(), handle.end(), 0));
  void* mapped = MapObject(key, size_bytes);
  if (mapped == nullptr) return Answer(Error::kInvalidValue);
  blocks_.emplace(reinterpret_cast<uintptr_t>(mapped), Block{*size_bytes, Memory::kImported});
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
  return Allocate(Memory::kPinned, size_bytes, data);
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
  if (Find(stream) == nullptr) return Answer(Error::kInvalidResourceHandle);
  return Allocate(Memory::kDevice, size_bytes, data);
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
  checker_.Enqueue(found->id, {}, {{data, size_bytes}});
  found->stream->PushRelease([data] { std::free(data); });
  return error;
}

Error FakeGpu::SetPoolReleaseThreshold(int device, size_t /*size_bytes*/) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  const bool is_there = device >= 0 && device < options_.devices;
  return Answer(is_there ? Error::kSuccess : Error::kInvalidDevice);
}

}  // namespace penstock
