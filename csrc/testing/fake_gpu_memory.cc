// The fake GPU's memory: blocks, what a process registers, what it exports.

#include <cstdlib>
#include <cstring>
#include <new>
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

}  // namespace

Error FakeGpu::Allocate(Memory kind, size_t size_bytes, void** data) {
  if (size_bytes == 0) return Answer(Error::kInvalidValue);
  const bool on_device = kind != Memory::kPinned;
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
  if (kind == Memory::kDevice || kind == Memory::kExportable) {
    live_bytes_ -= found->second.size_bytes;
  }
  blocks_.erase(found);
  return Error::kSuccess;
}

bool FakeGpu::Holds(const void* data, size_t size_bytes, bool on_device) const {
  const auto address = reinterpret_cast<uintptr_t>(data);
  auto found = blocks_.upper_bound(address);
  if (found == blocks_.begin()) return false;
  --found;
  const auto& [begin, block] = *found;
  const bool is_device = block.kind == Memory::kDevice || block.kind == Memory::kExportable;
  const size_t offset = address - begin;
  return is_device == on_device && offset <= block.size_bytes &&
         size_bytes <= block.size_bytes - offset;
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

Error FakeGpu::RegisterHost(void* data, size_t size_bytes) {
  MutexLock lock(mu_);
  if (const Error error = EnterUnsafe(__func__); error != Error::kSuccess) return error;
  const Block block{size_bytes, Memory::kRegistered};
  const bool is_new = blocks_.emplace(reinterpret_cast<uintptr_t>(data), block).second;
  return Answer(is_new ? Error::kSuccess : Error::kInvalidValue);
}

Error FakeGpu::UnregisterHost(void* data) {
  MutexLock lock(mu_);
  const Error error = EnterUnsafe(__func__);
  if (error != Error::kSuccess && !IsSticky(error)) return error;
  const Error gone = Forget(data, Memory::kRegistered);
  return gone != Error::kSuccess ? gone : error;
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

Error FakeGpu::AllocateExportable(size_t size_bytes, void** data) {
  MutexLock lock(mu_);
  if (const Error error = EnterUnsafe(__func__); error != Error::kSuccess) return error;
  return Allocate(Memory::kExportable, size_bytes, data);
}

Error FakeGpu::FreeExportable(void* data) {
  MutexLock lock(mu_);
  const Error error = EnterUnsafe(__func__);
  if (error != Error::kSuccess && !IsSticky(error)) return error;
  if (const Error gone = Forget(data, Memory::kExportable); gone != Error::kSuccess) return gone;
  std::free(data);
  return error;
}

Error FakeGpu::SetPoolReleaseThreshold(int device, size_t /*size_bytes*/) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  const bool is_there = device >= 0 && device < options_.devices;
  return Answer(is_there ? Error::kSuccess : Error::kInvalidDevice);
}

// ---- export: a handle is the thing's own address, as one process is all there is

Error FakeGpu::ExportMemory(void* data, gpu::IpcHandle* handle) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  const auto found = blocks_.find(reinterpret_cast<uintptr_t>(data));
  if (found == blocks_.end() || found->second.kind != Memory::kExportable) {
    return Answer(Error::kInvalidValue);
  }
  *handle = {};
  std::memcpy(handle->data(), &data, sizeof(data));
  return Error::kSuccess;
}

Error FakeGpu::ImportMemory(const gpu::IpcHandle& handle, void** data) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  void* exported = nullptr;
  std::memcpy(&exported, handle.data(), sizeof(exported));
  if (!Holds(exported, 0, true)) return Answer(Error::kInvalidValue);
  *data = exported;
  return Error::kSuccess;
}

Error FakeGpu::CloseImportedMemory(void* data) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  return Answer(Holds(data, 0, true) ? Error::kSuccess : Error::kInvalidValue);
}

Error FakeGpu::ExportEvent(gpu::Event event, gpu::IpcHandle* handle) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  const EventState* found = Find(event);
  if (found == nullptr || found->kind != gpu::EventKind::kInterprocess) {
    return Answer(Error::kInvalidResourceHandle);
  }
  *handle = {};
  std::memcpy(handle->data(), &event, sizeof(event));
  return Error::kSuccess;
}

Error FakeGpu::ImportEvent(const gpu::IpcHandle& handle, gpu::Event* event) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  gpu::Event exported = nullptr;
  std::memcpy(&exported, handle.data(), sizeof(exported));
  const EventState* found = Find(exported);
  if (found == nullptr) return Answer(Error::kInvalidResourceHandle);
  const EventState copy = *found;  // as it was last recorded
  *event = MakeHandle<gpu::Event>();
  events_.emplace(*event, copy);
  return Error::kSuccess;
}

}  // namespace penstock
