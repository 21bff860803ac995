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

// Of what a worker sends, which may be anything.
bool ReadSaid(BodyReader* reader, std::string* text) {
  return reader->ReadText(text) && text->size() <= kMaxWorkerTextBytes && IsValidUtf8(*text);
}

bool ReadGraphs(BodyReader* reader, std::vector<GraphUse>* graphs) {
  uint32_t count = 0;
  if (!reader->Read(&count) || count > kMaxWorkerTensors) return false;
  for (uint32_t i = 0; i < count; ++i) {
    GraphUse& graph = graphs->emplace_back();
    if (!reader->Read(&graph.rows) || !reader->Read(&graph.runs) ||
        !reader->Read(&graph.padded_rows)) {
      return false;
    }
  }
  return true;
}

bool ReadUse(BodyReader* reader, DeviceUse* use) {
  return ReadSaid(reader, &use->kind) && reader->Read(&use->id) && ReadSaid(reader, &use->name) &&
         ReadSaid(reader, &use->uuid) && reader->Read(&use->memory_bytes) &&
         reader->Read(&use->graph_bytes) && reader->Read(&use->graph_budget_bytes) &&
         reader->Read(&use->uncaptured_runs) && reader->Read(&use->uncaptured_padded_rows) &&
         reader->Read(&use->row_changes) && reader->Read(&use->busy_ns) &&
         ReadGraphs(reader, &use->graphs);
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
  PutText(description.runs_on, &body);
  PutNumber(description.most_rows, &body);
  EncodeSignature(description.signature, &body);
  return body;
}

Result<DeviceDescription> DecodeDeviceDescription(std::span<const uint8_t> body) {
  BodyReader reader(body);
  DeviceDescription description;
  if (!ReadSaid(&reader, &description.engine) || !ReadSaid(&reader, &description.runs_on) ||
      !reader.Read(&description.most_rows)) {
    return InvalidArgument("a description that cannot be read");
  }
  PENSTOCK_ASSIGN_OR_RETURN(description.signature, DecodeSignature(reader.rest()));
  return description;
}

std::string EncodeDeviceUses(std::span<const DeviceUse> uses) {
  std::string body;
  PutNumber(static_cast<uint32_t>(uses.size()), &body);
  for (const DeviceUse& use : uses) {
    PutText(use.kind, &body);
    PutNumber(use.id, &body);
    PutText(use.name, &body);
    PutText(use.uuid, &body);
    for (const uint64_t number :
         {use.memory_bytes, use.graph_bytes, use.graph_budget_bytes, use.uncaptured_runs,
          use.uncaptured_padded_rows, use.row_changes, use.busy_ns}) {
      PutNumber(number, &body);
    }
    PutNumber(static_cast<uint32_t>(use.graphs.size()), &body);
    for (const GraphUse& graph : use.graphs) {
      PutNumber(graph.rows, &body);
      PutNumber(graph.runs, &body);
      PutNumber(graph.padded_rows, &body);
    }
  }
  return body;
}

Result<std::vector<DeviceUse>> DecodeDeviceUses(std::span<const uint8_t> body) {
  BodyReader reader(body);
  uint32_t count = 0;
  bool is_read = reader.Read(&count) && count <= kMaxWorkerTensors;
  std::vector<DeviceUse> uses;
  for (uint32_t i = 0; is_read && i < count; ++i) is_read = ReadUse(&reader, &uses.emplace_back());
  if (is_read && reader.is_at_end()) return uses;
  return InvalidArgument("what is used of devices cannot be read");
}

}  // namespace penstock
