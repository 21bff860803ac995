#include "gpu/device.h"

#include <string_view>

#include "base/strcat.h"

namespace penstock::gpu {

Result<std::unique_ptr<Device>> Device::Open(Api& api, Clock& clock,
                                             const CompletionOptions& options) {
  std::unique_ptr<Device> device(new Device(api, clock, options.device));
  PENSTOCK_RETURN_IF_ERROR(device->Start(options));
  return device;
}

Device::Device(Api& api, Clock& clock, int ordinal)
    : api_(api),
      clock_(clock),
      ordinal_(ordinal),
      health_(api, StrCat("GPU ", ordinal_)),
      imports_(api, health_, ordinal_) {}

bool Device::Answers() {
  constexpr std::string_view kWhat = "ask whether it is there";
  if (health_.is_faulted() || !health_.Check(api_.SetDevice(ordinal_), kWhat).ok()) return false;
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  static_cast<void>(health_.Check(api_.MemoryInfo(&free_bytes, &total_bytes), kWhat));
  return !health_.is_faulted();
}

Status Device::Start(const CompletionOptions& options) {
  Status taken = health_.Check(api_.SetDevice(ordinal_), "take the device");
  // It is not there, or another process's alone: that may pass.
  if (taken.code() == StatusCode::kInternal) taken = Unavailable(std::string(taken.message()));
  PENSTOCK_RETURN_IF_ERROR(taken);
  PENSTOCK_RETURN_IF_ERROR(
      health_.Check(api_.GetProperties(ordinal_, &properties_), "ask what the device is"));
  completion_ = std::make_unique<CompletionThread>(api_, health_, clock_, options);
  return Status::Ok();
}

}  // namespace penstock::gpu
