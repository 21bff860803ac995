// Devices as models name them, and as CUDA_VISIBLE_DEVICES does.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace penstock {

// A device that models run on.
struct SeenDevice {
  std::string visible;  // what CUDA_VISIBLE_DEVICES has to be for a process that sees it alone
  std::optional<int64_t> number;  // as this process counts its devices; nullopt: it is not known
};

// `device` is a number among those that this process sees, whose CUDA_VISIBLE_DEVICES is `visible`
// (null: not set), or a UUID, "GPU-..." or "MIG-...", whose number is its place in that list, if it is
// there. NOT_FOUND where this process does not see it; INVALID_ARGUMENT where it is neither.
Result<SeenDevice> FindDevice(std::string_view device, const char* visible);

// "GPU 0" of a number, a UUID as it is: for messages.
std::string DeviceLabel(std::string_view device);

}  // namespace penstock
