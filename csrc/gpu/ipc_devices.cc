#include "gpu/ipc_devices.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <exception>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/leave_to_process.h"
#include "base/strcat.h"
#include "gpu/device_health.h"
#include "gpu/gpu_handles.h"
#include "memory/exported_memory.h"

namespace penstock::gpu {

namespace {

// What one thread copies with.
// Ownership: borrows the Api and what it was made on.
struct Copier {
  explicit Copier(Api& api) : api(api) {}
  ~Copier() {
    if (pinned != nullptr) static_cast<void>(api.FreePinned(pinned));
  }
  Copier(const Copier&) = delete;
  Copier& operator=(const Copier&) = delete;

  Api& api;
  uint8_t* pinned = nullptr;
  OwnedStream stream;
  OwnedEvent copied;
};

}  // namespace

// One GPU, as regions use it.
// Threading: thread-safe.
// Ownership: owns the Api with others; its regions own it.
class IpcDevice {
 public:
  IpcDevice(std::shared_ptr<Api> api, int number, Clock& clock, const IpcOptions& options)
      : api_(std::move(api)),
        number_(number),
        clock_(clock),
        options_(options),
        health_(*api_, StrCat("GPU ", number)) {}
  ~IpcDevice();

  Status Map(const SharedRegionInfo& info, const IpcHandle& handle, void** data);
  void Unmap(void* data);
  // Both return when the copy is over.
  Status Read(const uint8_t* from, std::span<uint8_t> out, std::string_view what);
  Status Write(uint8_t* to, std::span<const uint8_t> data, std::string_view what);

 private:
  Status Enter(std::string_view what);
  Result<std::unique_ptr<Copier>> TakeCopier(std::string_view what) EXCLUDES(mu_);
  Result<std::unique_ptr<Copier>> MakeCopier(std::string_view what);
  void GiveBack(std::unique_ptr<Copier> copier) EXCLUDES(mu_);
  Status CopyChunk(const Copier& copier, const Copy& copy, CopyKind kind, std::string_view what);
  Status Await(Event event) EXCLUDES(mu_);
  CompletionThread& completion() EXCLUDES(mu_);

  // Constant after construction.
  const std::shared_ptr<Api> api_;
  const int number_;
  Clock& clock_;
  const IpcOptions options_;

  DeviceHealth health_;  // own synchronisation

  Mutex mu_;
  // Guarded by mu_.
  std::vector<std::unique_ptr<Copier>> idle_ GUARDED_BY(mu_);  // as many as have copied at a time
  std::unique_ptr<CompletionThread> completion_ GUARDED_BY(mu_);  // null before the first copy
};

IpcDevice::~IpcDevice() {
  MutexLock lock(mu_);
  completion_.reset();
  if (!health_.is_faulted()) {
    static_cast<void>(api_->SetDevice(number_));  // for what the members give back, on this thread
    return;
  }
  for (auto& copier : idle_) LeaveToTheProcess(std::move(copier));
}

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

Result<std::unique_ptr<Copier>> IpcDevice::TakeCopier(std::string_view what) {
  {
    MutexLock lock(mu_);
    if (!idle_.empty()) {
      std::unique_ptr<Copier> copier = std::move(idle_.back());
      idle_.pop_back();
      return copier;
    }
  }
  return MakeCopier(what);
}

Result<std::unique_ptr<Copier>> IpcDevice::MakeCopier(std::string_view what) {
  auto copier = std::make_unique<Copier>(*api_);
  Stream stream = nullptr;
  PENSTOCK_RETURN_IF_ERROR(health_.Check(api_->CreateStream(&stream), what));
  copier->stream = OwnedStream(*api_, stream);
  Event event = nullptr;
  PENSTOCK_RETURN_IF_ERROR(health_.Check(api_->CreateEvent(&event), what));
  copier->copied = OwnedEvent(*api_, event);
  void* pinned = nullptr;
  PENSTOCK_RETURN_IF_ERROR(
      health_.Check(api_->AllocatePinned(options_.chunk_bytes, &pinned), what));
  copier->pinned = static_cast<uint8_t*>(pinned);
  return copier;
}

void IpcDevice::GiveBack(std::unique_ptr<Copier> copier) {
  if (health_.is_faulted()) {
    LeaveToTheProcess(std::move(copier));
    return;
  }
  MutexLock lock(mu_);
  idle_.push_back(std::move(copier));
}

CompletionThread& IpcDevice::completion() {
  MutexLock lock(mu_);
  if (completion_ == nullptr) {
    CompletionOptions options = options_.completion;
    options.device = number_;
    completion_ = std::make_unique<CompletionThread>(*api_, health_, clock_, options);
  }
  return *completion_;
}

// Never in the driver, which a copy that does not end would hold for ever.
Status IpcDevice::Await(Event event) {
  Mutex mu;
  CondVar ended;
  bool is_over = false;
  Status how;
  completion().Watch({.events = {event}, .what = "a copy", .done = [&](const Status& status) {
                        MutexLock lock(mu);
                        how = status;
                        is_over = true;
                        ended.NotifyOne();  // under the lock: the waiter has these on its stack
                      }});
  MutexLock lock(mu);
  while (!is_over) ended.Wait(mu);
  return how;
}

Status IpcDevice::CopyChunk(const Copier& copier, const Copy& copy, CopyKind kind,
                            std::string_view what) {
  PENSTOCK_RETURN_IF_ERROR(health_.Check(api_->CopyAsync(copy, kind, copier.stream.get()), what));
  Status status = health_.Check(api_->RecordEvent(copier.copied.get(), copier.stream.get()), what);
  // Nobody could use its memory again.
  if (!status.ok()) health_.Fault(StrCat("cannot tell when a copy is over: ", what));
  return status.ok() ? Await(copier.copied.get()) : status;
}

Status IpcDevice::Read(const uint8_t* from, std::span<uint8_t> out, std::string_view what) {
  PENSTOCK_RETURN_IF_ERROR(Enter(what));
  PENSTOCK_ASSIGN_OR_RETURN(std::unique_ptr<Copier> copier, TakeCopier(what));
  Status status;
  for (size_t done = 0; status.ok() && done < out.size();) {
    const size_t size_bytes = std::min(out.size() - done, options_.chunk_bytes);
    status = CopyChunk(*copier, {copier->pinned, from + done, size_bytes}, CopyKind::kDeviceToHost,
                       what);
    if (status.ok()) std::memcpy(out.data() + done, copier->pinned, size_bytes);
    done += size_bytes;
  }
  GiveBack(std::move(copier));
  return status;
}

Status IpcDevice::Write(uint8_t* to, std::span<const uint8_t> data, std::string_view what) {
  PENSTOCK_RETURN_IF_ERROR(Enter(what));
  PENSTOCK_ASSIGN_OR_RETURN(std::unique_ptr<Copier> copier, TakeCopier(what));
  Status status;
  for (size_t done = 0; status.ok() && done < data.size();) {
    const size_t size_bytes = std::min(data.size() - done, options_.chunk_bytes);
    std::memcpy(copier->pinned, data.data() + done, size_bytes);
    status =
        CopyChunk(*copier, {to + done, copier->pinned, size_bytes}, CopyKind::kHostToDevice, what);
    done += size_bytes;
  }
  GiveBack(std::move(copier));
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
    if (out.empty()) return Status::Ok();
    return device_->Read(exported_.data() + offset, out, What("read"));
  }
  Status Write(uint64_t offset, std::span<const uint8_t> data) const override {
    assert(Contains(offset, data.size()));
    if (data.empty()) return Status::Ok();
    return device_->Write(exported_.data() + offset, data, What("write"));
  }

 private:
  std::string What(std::string_view verb) const {
    return StrCat(verb, " shared memory region '", info().name, "'");
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

IpcDevices::IpcDevices(OpenApi open_api, Clock& clock, const IpcOptions& options)
    : open_api_(std::move(open_api)), clock_(clock), options_(options) {}

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
  if (device == nullptr) {
    device = std::make_shared<IpcDevice>(api_, number, clock_, options_);
  }
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
