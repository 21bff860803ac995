// Devices as models name them, and as CUDA_VISIBLE_DEVICES does.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace penstock {

// What CUDA_VISIBLE_DEVICES has to be for a process that sees `device` alone. `device` is a number
// among those that this process sees, whose CUDA_VISIBLE_DEVICES is `visible` (null: not set), or a
// UUID, "GPU-..." or "MIG-...", which stays as it is. NOT_FOUND where this process does not see it;
// INVALID_ARGUMENT where it is neither.
Result<std::string> VisibleDevice(std::string_view device, const char* visible);

// The number that `device` is, if it is one.
std::optional<int64_t> DeviceNumber(std::string_view device);

// "GPU 0" of a number, a UUID as it is: for messages.
std::string DeviceLabel(std::string_view device);

}  // namespace penstock
