// What a device worker is told to load, and what it says of it: bodies of LOAD, DESCRIBED and USED.

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "base/status.h"
#include "worker/messages.h"

namespace penstock {

// With how a worker ends that has lost its device.
inline constexpr int kDeviceLostExit = 86;

//   load      = backend text, options map, model_name text, version i64, path text,
//               model_directory text, parameters map, config_json text
//   described = engine text, runs_on text, most_rows u32 (0: any), signature (worker/messages.h)
//   used      = count u32, use*
//   use       = kind text, id i64, name text, uuid text, memory u64, graph memory u64, its budget u64,
//               uncaptured runs u64, uncaptured padded rows u64, row changes u64, busy u64, graphs u32,
//               graph*
//   graph     = rows u32, runs u64, padded rows u64
//   text      = size u32, bytes
//   map       = count u32, (key text, value text)*
struct DeviceLoad {
  std::string backend;
  BackendOptions backend_options;
  LoadOptions options;
};

struct DeviceDescription {
  std::string engine;      // Backend::description()
  std::string runs_on;     // BackendModel::runs_on(), as the worker counts devices
  uint32_t most_rows = 0;  // ModelSignature's; 0: nullopt
  WorkerSignature signature;

  bool operator==(const DeviceDescription&) const = default;
};

std::string EncodeDeviceLoad(const DeviceLoad& load);
// INVALID_ARGUMENT where it cannot be read.
Result<DeviceLoad> DecodeDeviceLoad(std::span<const uint8_t> body);
std::string EncodeDeviceDescription(const DeviceDescription& description);
// INVALID_ARGUMENT where it cannot be read.
Result<DeviceDescription> DecodeDeviceDescription(std::span<const uint8_t> body);
std::string EncodeDeviceUses(std::span<const DeviceUse> uses);
// INVALID_ARGUMENT where it cannot be read.
Result<std::vector<DeviceUse>> DecodeDeviceUses(std::span<const uint8_t> body);

}  // namespace penstock
