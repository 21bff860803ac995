#include "backends/device_worker/load_document.h"

#include <map>

#include "base/utf8.h"
#include "worker/body.h"

namespace penstock {
namespace {

using Map = std::map<std::string, std::string>;

void PutMap(const Map& map, std::string* out) {
  PutNumber(static_cast<uint32_t>(map.size()), out);
  for (const auto& [key, value] : map) {
    PutText(key, out);
    PutText(value, out);
  }
}

bool ReadMap(BodyReader* reader, Map* map) {
  uint32_t count = 0;
  if (!reader->Read(&count)) return false;
  for (uint32_t i = 0; i < count; ++i) {
    std::string key;
    if (!reader->ReadText(&key) || !reader->ReadText(&(*map)[key])) return false;
  }
  return true;
}

}  // namespace

std::string EncodeDeviceLoad(const DeviceLoad& load) {
  std::string body;
  PutText(load.backend, &body);
  PutMap(load.backend_options, &body);
  PutText(load.options.model_name, &body);
  PutNumber(load.options.version, &body);
  PutText(load.options.path, &body);
  PutText(load.options.model_directory, &body);
  PutMap(load.options.parameters, &body);
  PutText(load.options.config_json, &body);
  return body;
}

Result<DeviceLoad> DecodeDeviceLoad(std::span<const uint8_t> body) {
  BodyReader reader(body);
  DeviceLoad load;
  LoadOptions& options = load.options;
  if (reader.ReadText(&load.backend) && ReadMap(&reader, &load.backend_options) &&
      reader.ReadText(&options.model_name) && reader.Read(&options.version) &&
      reader.ReadText(&options.path) && reader.ReadText(&options.model_directory) &&
      ReadMap(&reader, &options.parameters) && reader.ReadText(&options.config_json) &&
      reader.is_at_end()) {
    return load;
  }
  return InvalidArgument("a load that cannot be read");
}

std::string EncodeDeviceDescription(const DeviceDescription& description) {
  std::string body;
  PutText(description.engine, &body);
  EncodeSignature(description.signature, &body);
  return body;
}

Result<DeviceDescription> DecodeDeviceDescription(std::span<const uint8_t> body) {
  BodyReader reader(body);
  DeviceDescription description;
  if (!reader.ReadText(&description.engine) || description.engine.size() > kMaxWorkerTextBytes ||
      !IsValidUtf8(description.engine)) {
    return InvalidArgument("a description that cannot be read");
  }
  PENSTOCK_ASSIGN_OR_RETURN(description.signature, DecodeSignature(reader.rest()));
  return description;
}

}  // namespace penstock
