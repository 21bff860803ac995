#include "backends/tensorrt/device_table.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "base/strcat.h"
#include "gpu/near_cpus.h"

namespace penstock::tensorrt {
namespace {

constexpr std::string_view kGpu = "GPU-";
constexpr std::string_view kMig = "MIG-";

std::optional<int> Number(std::string_view text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 0) return std::nullopt;
  return number;
}

}  // namespace

std::string UuidText(const gpu::DeviceProperties& device) {
  static constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text(device.name.find(" MIG ") == std::string::npos ? kGpu : kMig);
  for (size_t i = 0; i < device.uuid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += kDigits[device.uuid[i] >> 4];
    text += kDigits[device.uuid[i] & 15];
  }
  return text;
}

Result<int> DeviceTable::OrdinalOf(std::string_view name) {
  int count = 0;
  if (const gpu::Error error = api_.DeviceCount(&count); error != gpu::Error::kSuccess) {
    return Unavailable(
        StrCat("the CUDA runtime does not count its devices: ", api_.ErrorName(error)));
  }
  if (const auto number = Number(name)) {
    if (*number < count) return *number;
    return NotFound(StrCat("there is no GPU ", name, ": this process sees ", count));
  }
  // The digits tell, whatever stands before them.
  static_assert(kGpu.size() == kMig.size());
  const bool is_uuid = name.starts_with(kGpu) || name.starts_with(kMig);
  const std::string_view digits = is_uuid ? name.substr(kGpu.size()) : name;
  std::optional<int> found;
  std::string known;
  for (int i = 0; i < count; ++i) {
    gpu::DeviceProperties properties;
    if (const gpu::Error error = api_.GetProperties(i, &properties);
        error != gpu::Error::kSuccess) {
      return Unavailable(StrCat("GPU ", i, " does not say what it is: ", api_.ErrorName(error)));
    }
    const std::string uuid = UuidText(properties);
    known += StrCat(i == 0 ? "" : ", ", uuid);
    if (!is_uuid || !std::string_view(uuid).substr(kGpu.size()).starts_with(digits)) continue;
    if (found) return InvalidArgument(StrCat("several GPUs have a UUID of '", name, "...'"));
    found = i;
  }
  if (found) return *found;
  return NotFound(StrCat("there is no GPU '", name, "', expected a number or one of ", known));
}

Result<DeviceTable::Found> DeviceTable::Get(std::string_view name) {
  PENSTOCK_ASSIGN_OR_RETURN(const int ordinal, OrdinalOf(name));
  MutexLock lock(mu_);
  const bool is_first = std::none_of(devices_.begin(), devices_.end(),
                                     [](const auto& each) { return each.second != nullptr; });
  std::unique_ptr<gpu::Device>& device = devices_[ordinal];
  if (device == nullptr) {
    // Who waits for a batch knows how long it may take, and ends the process.
    const gpu::CompletionOptions options{.device = ordinal, .hang_limit_ns = kNever};
    PENSTOCK_ASSIGN_OR_RETURN(device, gpu::Device::Open(api_, clock_, options));
    if (is_first) gpu::BindThreadsNear(device->properties().pci_bus_id, sysfs_);
  }
  PENSTOCK_RETURN_IF_ERROR(
      device->health().Check(api_.SetDevice(ordinal), "take the device for this thread"));
  return Found{ordinal, device.get(), &registered_};
}

std::shared_ptr<void> DeviceTable::PinHostMemory(std::span<uint8_t> memory) {
  gpu::Device* open = nullptr;
  {
    MutexLock lock(mu_);
    for (const auto& [ordinal, device] : devices_) {
      if (device != nullptr && !device->health().is_faulted()) open = device.get();
      if (open != nullptr) break;
    }
  }
  if (open == nullptr) return nullptr;
  return registered_.Register(memory, open->ordinal(), open->health());
}

}  // namespace penstock::tensorrt
