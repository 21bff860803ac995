#include "backends/onnxruntime/settings.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

#include "backends/onnxruntime/gpu_settings.h"
#include "base/strcat.h"

namespace penstock::ort {
namespace {

constexpr int kMaxThreads = 1024;

// The engine's own session settings that change speed or memory, never what files are read or
// written.
constexpr std::array<std::string_view, 8> kSessionConfig = {
    "optimization.enable_gelu_approximation",
    "session.disable_prepacking",
    "session.dynamic_block_base",
    "session.enable_quant_qdq",
    "session.inter_op.allow_spinning",
    "session.intra_op.allow_spinning",
    "session.set_denormal_as_zero",
    "session.use_device_allocator_for_initializers"};

constexpr std::array<std::string_view, 8> kParameters = {
    "enable_mem_arena",      "enable_mem_pattern",
    "execution_mode",        "graph_optimization_level",
    "inter_op_thread_count", "intra_op_thread_count",
    "map_external_data",     "memory.enable_memory_arena_shrinkage"};

// What starts like this is meant for the engine (the last ones for its GPU providers).
constexpr std::array<std::string_view, 18> kEnginePrefixes = {
    "session.",    "optimization.", "memory.",     "mlas.",        "ep.",
    "intra_op",    "inter_op",      "execution_",  "enable_mem",   "graph_opt",
    "cudnn_",      "gpu_",          "trt_",        "arena_extend", "do_copy_in_default",
    "enable_cuda", "use_ort",       "map_external"};

template <size_t N>
bool Contains(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool LooksLikeOurs(std::string_view name) {
  return std::any_of(kEnginePrefixes.begin(), kEnginePrefixes.end(),
                     [&](std::string_view prefix) { return name.starts_with(prefix); });
}

Status Bad(std::string_view name, std::string_view value, std::string_view expected) {
  return InvalidArgument(StrCat("parameter '", name, "' of the onnxruntime backend: expected ",
                                expected, ", got '", value, "'"));
}

Status Unknown(std::string_view name) {
  std::string known;
  for (const auto& names : {std::vector(kParameters.begin(), kParameters.end()),
                            std::vector(kSessionConfig.begin(), kSessionConfig.end())}) {
    for (std::string_view each : names) known += StrCat(known.empty() ? "" : ", ", each);
  }
  return InvalidArgument(StrCat(
      "parameter '", name, "' is not supported by the onnxruntime backend; supported are ", known));
}

Result<int> ParseInt(std::string_view name, std::string_view value, int low, int high) {
  int number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size() || number < low || number > high) {
    return Bad(name, value, StrCat("a number from ", low, " to ", high));
  }
  return number;
}

Result<bool> ParseBool(std::string_view name, std::string_view value) {
  if (value == "1" || value == "true") return true;
  if (value == "0" || value == "false") return false;
  return Bad(name, value, "0 or 1");
}

// Triton's numbers for ModelConfig.optimization.graph.level: 0 is its default, everything.
Result<GraphLevel> ParseGraphLevel(std::string_view name, std::string_view value) {
  if (value == "-1") return GraphLevel::kBasic;
  if (value == "0") return GraphLevel::kAll;
  if (value == "1") return GraphLevel::kExtended;
  if (value == "2") return GraphLevel::kDisabled;
  return Bad(name, value, "-1 (basic), 0 (all), 1 (extended) or 2 (none)");
}

Status ParseThreads(const std::string& name, const std::string& value, Settings* settings) {
  PENSTOCK_ASSIGN_OR_RETURN(const int number, ParseInt(name, value, 0, kMaxThreads));
  if (name == "intra_op_thread_count") {
    settings->intra_op_threads = number;
  } else {
    settings->inter_op_threads = number;
  }
  return Status::Ok();
}

Status ParseOne(const std::string& name, const std::string& value, Settings* settings) {
  if (name.ends_with("_op_thread_count")) return ParseThreads(name, value, settings);
  if (name == "execution_mode") {
    PENSTOCK_ASSIGN_OR_RETURN(const int mode, ParseInt(name, value, 0, 1));
    settings->execution_mode = static_cast<ExecutionMode>(mode);
  } else if (name == "graph_optimization_level") {
    PENSTOCK_ASSIGN_OR_RETURN(settings->graph_level, ParseGraphLevel(name, value));
  } else if (name == "enable_mem_arena") {
    PENSTOCK_ASSIGN_OR_RETURN(settings->enable_mem_arena, ParseBool(name, value));
  } else if (name == "enable_mem_pattern") {
    PENSTOCK_ASSIGN_OR_RETURN(settings->enable_mem_pattern, ParseBool(name, value));
  } else if (name == "map_external_data") {
    PENSTOCK_ASSIGN_OR_RETURN(settings->map_external_data, ParseBool(name, value));
  } else {
    if (value != "cpu:0") return Bad(name, value, "'cpu:0'");
    settings->arena_shrinkage = value;
  }
  return Status::Ok();
}

}  // namespace

Result<Settings> ParseSettings(const std::map<std::string, std::string>& parameters) {
  Settings settings;
  for (const auto& [name, value] : parameters) {
    if (Contains(kParameters, name)) {
      PENSTOCK_RETURN_IF_ERROR(ParseOne(name, value, &settings));
    } else if (Contains(kSessionConfig, name)) {
      PENSTOCK_RETURN_IF_ERROR(ParseInt(name, value, 0, kMaxThreads).status());
      settings.session_config.emplace_back(name, value);
    } else if (LooksLikeOurs(name) && !IsGpuParameter(name)) {
      return Unknown(name);
    }
  }
  return settings;
}

}  // namespace penstock::ort
