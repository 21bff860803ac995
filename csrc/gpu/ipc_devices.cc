#include "gpu/ipc_devices.h"

#include <algorithm>
#include <cassert>
#include <exception>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/strcat.h"
#include "gpu/device_health.h"
#include "gpu/gpu_handles.h"
#include "memory/exported_memory.h"

namespace penstock::gpu {

// One GPU, as regions use it.
// Threading: thread-safe.
// Ownership: owns the Api with others; its regions own it.
class IpcDevice {
 public:
  IpcDevice(std::shared_ptr<Api> api, int number)
      : api_(std::move(api)),
        number_(number),
        health_(*api_, StrCat("GPU ", number), /*on_fault=*/nullptr) {}

  Status Map(const SharedRegionInfo& info, const IpcHandle& handle, void** data);
  void Unmap(void* data);
  // Returns when `copy` is over.
  Status CopyNow(const Copy& copy, CopyKind kind, std::string_view what);

 private:
  Status Enter(std::string_view what);
  Status TakeStream(std::string_view what, OwnedStream* stream);

  // Constant after construction.
  const std::shared_ptr<Api> api_;
  const int number_;

  DeviceHealth health_;  // own synchronisation

  Mutex mu_;
  // Guarded by mu_.
  std::vector<OwnedStream> idle_ GUARDED_BY(mu_);  // as many as threads have copied at a time
};

// A lost device is left alone; any other becomes this thread's.
Status IpcDevice::Enter(std::string_view what) {
  PENSTOCK_RETURN_IF_ERROR(health_.fault());
  return health_.Check(api_->SetDevice(number_), what);
}

Status IpcDevice::Map(const SharedRegionInfo& info, const IpcHandle& handle, void** data) {
  PENSTOCK_RETURN_IF_ERROR(Enter("open a client's memory"));
  size_t size_bytes = 0;
  const Error error = api_->OpenIpcMemory(handle, data, &size_bytes);
  const Status opened = health_.Check(error, "open a client's memory");
  if (opened.code() == StatusCode::kInternal) {  // neither memory nor the device: the handle
    return InvalidRegion(info, StrCat("the handle cannot be opened on device ", number_, ": ",
                                      api_->ErrorName(error)));
  }
  PENSTOCK_RETURN_IF_ERROR(opened);
  if (info.size_bytes <= size_bytes) return Status::Ok();
  Unmap(*data);
  return InvalidRegion(info, StrCat("byte size ", info.size_bytes, " reaches beyond the ",
                                    size_bytes, " bytes of its memory"));
}

void IpcDevice::Unmap(void* data) {
  constexpr std::string_view kWhat = "close a client's memory";
  if (Enter(kWhat).ok()) static_cast<void>(health_.Check(api_->CloseIpcMemory(data), kWhat));
}

Status IpcDevice::TakeStream(std::string_view what, OwnedStream* stream) {
  {
    MutexLock lock(mu_);
    if (!idle_.empty()) {
      *stream = std::move(idle_.back());
      idle_.pop_back();
      return Status::Ok();
    }
  }
  Stream made = nullptr;
  PENSTOCK_RETURN_IF_ERROR(health_.Check(api_->CreateStream(/*priority=*/0, &made), what));
  *stream = OwnedStream(*api_, made);
  return Status::Ok();
}

Status IpcDevice::CopyNow(const Copy& copy, CopyKind kind, std::string_view what) {
  PENSTOCK_RETURN_IF_ERROR(Enter(what));
  OwnedStream stream;
  PENSTOCK_RETURN_IF_ERROR(TakeStream(what, &stream));
  Status status = health_.Check(api_->CopyAsync(copy, kind, stream.get()), what);
  if (status.ok()) {
    status = health_.Check(api_->SynchronizeStream(stream.get()), what);
    // Whoever has the memory on the host could not use it again: the copy may still go on.
    if (!status.ok()) health_.Fault(StrCat("cannot tell when a copy is over: ", what));
  }
  MutexLock lock(mu_);
  idle_.push_back(std::move(stream));
  return status;
}

namespace {

// Of memory that a process exports.
class DeviceRegion final : public SharedRegion {
 public:
  // Takes over `data`, as the device mapped it.
  DeviceRegion(SharedRegionInfo info, std::shared_ptr<IpcDevice> device, const IpcHandle& handle,
               void* data)
      : SharedRegion(std::move(info)),
        device_(std::move(device)),
        exported_(handle, static_cast<int>(this->info().device_id), this->info().size_bytes, data) {
  }
  ~DeviceRegion() override { device_->Unmap(exported_.data()); }

  const ExportedMemory* exported() const override { return &exported_; }

  Status Read(uint64_t offset, std::span<uint8_t> out) const override {
    assert(Contains(offset, out.size()));
    return Copied({out.data(), exported_.data() + offset, out.size()}, CopyKind::kDeviceToHost,
                  "read");
  }
  Status Write(uint64_t offset, std::span<const uint8_t> data) const override {
    assert(Contains(offset, data.size()));
    return Copied({exported_.data() + offset, data.data(), data.size()}, CopyKind::kHostToDevice,
                  "write");
  }

 private:
  Status Copied(const Copy& copy, CopyKind kind, std::string_view verb) const {
    if (copy.size_bytes == 0) return Status::Ok();
    return device_->CopyNow(copy, kind, StrCat(verb, " shared memory region '", info().name, "'"));
  }

  const std::shared_ptr<IpcDevice> device_;
  const ExportedMemory exported_;
};

Status CheckArguments(const SharedRegionInfo& info, std::string_view handle) {
  if (handle.size() != std::tuple_size_v<IpcHandle>) {
    return InvalidRegion(info, StrCat("a handle is a cudaIpcMemHandle_t of ",
                                      std::tuple_size_v<IpcHandle>, " bytes, got ", handle.size()));
  }
  if (info.size_bytes == 0) return InvalidRegion(info, "the byte size is 0");
  return Status::Ok();
}

}  // namespace

IpcDevices::IpcDevices(OpenApi open_api) : open_api_(std::move(open_api)) {}

IpcDevices::~IpcDevices() = default;

Status IpcDevices::OpenApiLocked() {
  if (api_ != nullptr || !why_not_.ok()) return why_not_;
  Result<std::unique_ptr<Api>> opened = open_api_();
  if (opened.ok()) {
    api_ = *std::move(opened);
  } else {
    why_not_ = opened.status();
  }
  return why_not_;
}

Status IpcDevices::CheckUsable() {
  MutexLock lock(mu_);
  return OpenApiLocked();
}

Result<std::shared_ptr<IpcDevice>> IpcDevices::Find(const SharedRegionInfo& info) {
  MutexLock lock(mu_);
  PENSTOCK_RETURN_IF_ERROR(OpenApiLocked());
  int count = 0;
  if (const Error error = api_->DeviceCount(&count); error != Error::kSuccess) {
    return Unavailable(StrCat("CUDA does not count its devices: ", api_->ErrorName(error)));
  }
  if (info.device_id < 0 || info.device_id >= count) {
    return InvalidRegion(info, StrCat("expected a device below ", count, ", got ", info.device_id));
  }
  const int number = static_cast<int>(info.device_id);
  std::shared_ptr<IpcDevice>& device = devices_[number];
  if (device == nullptr) device = std::make_shared<IpcDevice>(api_, number);
  return device;
}

Result<std::unique_ptr<const SharedRegion>> IpcDevices::Open(SharedRegionInfo info,
                                                             std::string_view handle) {
  PENSTOCK_RETURN_IF_ERROR(CheckArguments(info, handle));
  PENSTOCK_ASSIGN_OR_RETURN(const std::shared_ptr<IpcDevice> device, Find(info));
  IpcHandle bytes;
  std::copy(handle.begin(), handle.end(), bytes.begin());
  void* data = nullptr;
  PENSTOCK_RETURN_IF_ERROR(device->Map(info, bytes, &data));
  return std::unique_ptr<const SharedRegion>(
      std::make_unique<DeviceRegion>(std::move(info), device, bytes, data));
}

}  // namespace penstock::gpu
