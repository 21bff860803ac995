// InspectModelFile: what must be known of an ONNX file before the engine is given its path.
//
// An ONNX file may name other files that hold its weights, and the engine opens whatever it names.
// So the file's own protobuf is read first (a walk that looks only at the few fields below) and
// each named file is held to the model's directory.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "base/status.h"

namespace penstock::ort {

struct ModelFileFacts {
  uint64_t size_bytes = 0;          // of the file and its external data
  std::set<std::string> locations;  // of external data, as the file writes them
  // Of those, what is data of something else than the outermost graph's initializers: of graphs
  // inside it, of attributes. The engine takes it from nowhere but a mapped file.
  std::set<std::string> inner_locations;
  bool has_heavy_operator = false;  // work out of proportion to the size: convolutions, recurrences
  std::set<std::string>
      rank_unknown;  // graph inputs and outputs whose shape the file does not give
};

// "model 'digits' version 1", the start of every message about a load.
std::string ModelLabel(const LoadOptions& options);

// `message` without the paths it may contain: the model's directory, written as given or resolved.
std::string WithoutPaths(std::string message, const LoadOptions& options);

// NOT_FOUND where a file is missing; INVALID_ARGUMENT where the file is no ONNX file or is
// truncated, or where its external data is absolute, climbs ("..") or leads out of the directory by
// a symbolic link. Blocking: reads the whole file once.
Result<ModelFileFacts> InspectModelFile(const LoadOptions& options);

// The content of a file of external data.
struct ExternalData {
  std::string location;  // as the model file writes it
  std::unique_ptr<char[]> bytes;
  size_t size = 0;
};

// Reads every one of the locations, checked as InspectModelFile does. Left to itself the engine maps
// these files into memory for as long as it serves: what is written there later would be in the
// answers, and where a file is cut short the process would end. Blocking.
Result<std::vector<ExternalData>> ReadExternalData(const LoadOptions& options,
                                                   const std::set<std::string>& locations);

}  // namespace penstock::ort
