// Settings: a model's engine settings, read from ModelConfig.parameters under Triton's names.

#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backends/onnxruntime/ort_api.h"
#include "base/status.h"

namespace penstock::ort {

struct Settings {
  // Threads inside one operator: nullopt = chosen by the model's size (ort_model.cc), 0 = the pool
  // that all models share, n = n of the model's own, the calling thread counted.
  std::optional<int> intra_op_threads;
  // Threads across operators, in parallel mode only; 0 = one for each CPU.
  int inter_op_threads = 0;
  ExecutionMode execution_mode = ExecutionMode::kSequential;
  GraphLevel graph_level = GraphLevel::kAll;
  bool enable_mem_arena = true;
  bool enable_mem_pattern = true;
  bool map_external_data = false;  // else it is read: see ReadExternalData in model_file.h
  std::string arena_shrinkage;     // run option, e.g. "cpu:0"; empty = never shrink
  std::vector<std::pair<std::string, std::string>> session_config;  // passed on as they are
};

// Reads `parameters`. A parameter that looks like one of the engine's (by its name or its prefix)
// but is not known here is refused by name, with what is known: it would otherwise be ignored
// silently. Every other parameter is the model owner's own and left alone. INVALID_ARGUMENT names
// parameter and value.
Result<Settings> ParseSettings(const std::map<std::string, std::string>& parameters);

}  // namespace penstock::ort
