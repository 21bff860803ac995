#include "backends/openvino/settings.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <string_view>

#include "base/strcat.h"

namespace penstock::openvino {
namespace {

constexpr int kMaxThreads = 1024;

constexpr std::array<std::string_view, 10> kParameters = {"COMPILATION_NUM_THREADS",
                                                          "ENABLE_BATCH_PADDING",
                                                          "HINT_BF16",
                                                          "INFERENCE_NUM_THREADS",
                                                          "INFERENCE_PRECISION_HINT",
                                                          "NUM_STREAMS",
                                                          "PERFORMANCE_HINT",
                                                          "RESHAPE_IO_LAYERS",
                                                          "SKIP_OV_DYNAMIC_BATCHSIZE",
                                                          "TARGET_DEVICE"};

// What starts like this is meant for the engine or for its device plug-ins.
constexpr std::array<std::string_view, 27> kEnginePrefixes = {
    "AFFINITY",   "AUTO_BATCH", "CACHE_",     "COMPILATION_",   "CPU_",        "DEVICE_",
    "DYNAMIC_",   "ENABLE_",    "EXCLUSIVE_", "EXECUTION_MODE", "GPU_",        "HINT_",
    "INFERENCE_", "KV_CACHE",   "LOG_LEVEL",  "MODEL_DISTR",    "MODEL_PRIOR", "MULTI_",
    "NPU_",       "NUM_",       "OPTIMAL_",   "PERF",           "RESHAPE_IO",  "SCHEDULING_CORE_",
    "SKIP_OV",    "TARGET_",    "WEIGHTS_"};

bool LooksLikeOurs(std::string_view name) {
  return std::any_of(kEnginePrefixes.begin(), kEnginePrefixes.end(),
                     [&](std::string_view prefix) { return name.starts_with(prefix); });
}

std::string Label(std::string_view name) {
  return StrCat("parameter '", name, "' of the openvino backend");
}

Status Bad(std::string_view name, std::string_view value, std::string_view expected) {
  return InvalidArgument(StrCat(Label(name), ": expected ", expected, ", got '", value, "'"));
}

Status Unknown(std::string_view name) {
  std::string known;
  for (std::string_view each : kParameters) known += StrCat(known.empty() ? "" : ", ", each);
  return InvalidArgument(StrCat(
      "parameter '", name, "' is not supported by the openvino backend; supported are ", known));
}

std::string UpperCase(std::string_view value) {
  std::string upper(value);
  for (char& each : upper) each = static_cast<char>(std::toupper(static_cast<uint8_t>(each)));
  return upper;
}

Result<int> ParseThreads(std::string_view name, std::string_view value) {
  int number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error == std::errc() && end == value.data() + value.size() && number >= 0 &&
      number <= kMaxThreads) {
    return number;
  }
  return Bad(name, value, StrCat("a number from 0 to ", kMaxThreads));
}

Result<bool> ParseYes(std::string_view name, std::string_view value) {
  const std::string upper = UpperCase(value);
  if (upper == "YES") return true;
  if (upper == "NO") return false;
  return Bad(name, value, "YES or NO");
}

Result<int> ParseStreams(std::string_view name, std::string_view value) {
  const std::string upper = UpperCase(value);
  if (upper == "AUTO") return kAutoStreams;
  if (upper == "NUMA") return kNumaStreams;
  Result<int> number = ParseThreads(name, value);
  if (number.ok() && *number > 0) return number;
  return Bad(name, value, StrCat("AUTO, NUMA or a number from 1 to ", kMaxThreads));
}

Result<Hint> ParseHint(std::string_view name, std::string_view value) {
  const std::string upper = UpperCase(value);
  if (upper == "LATENCY") return Hint::kLatency;
  if (upper == "THROUGHPUT") return Hint::kThroughput;
  if (upper == "CUMULATIVE_THROUGHPUT") return Hint::kCumulativeThroughput;
  return Bad(name, value, "LATENCY, THROUGHPUT or CUMULATIVE_THROUGHPUT");
}

Result<Precision> ParsePrecision(std::string_view name, std::string_view value) {
  const std::string upper = UpperCase(value);
  if (upper == "F32" || upper == "FP32") return Precision::kFp32;
  if (upper == "BF16") return Precision::kBf16;
  if (upper == "F16" || upper == "FP16") return Precision::kFp16;
  return Bad(name, value, "f32, bf16 or f16");
}

// "-1,3,8,8", of the parameter "RESHAPE_IO_LAYERS:<input>".
Status ParseShape(std::string_view name, std::string_view value, Settings* settings) {
  Shape shape;
  for (std::string_view rest = value; !rest.empty();) {
    const std::string_view part = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(part.size() + 1, rest.size()));
    int64_t dim = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), dim);
    if (error != std::errc() || end != part.data() + part.size() || dim == 0 || dim < -1 ||
        shape.rank() == kMaxRank) {
      return Bad(name, value, StrCat("up to ", kMaxRank, " sizes, -1 for any"));
    }
    shape.Append(dim);
  }
  settings->shapes[std::string(name.substr(kReshape.size() + 1))] = shape;
  return Status::Ok();
}

bool IsShape(std::string_view name) {
  return name.starts_with(kReshape) && name.substr(kReshape.size()).starts_with(':');
}

Status ParseThreading(const std::string& name, const std::string& value, Settings* settings) {
  if (name == "NUM_STREAMS") {
    PENSTOCK_ASSIGN_OR_RETURN(settings->streams, ParseStreams(name, value));
    return Status::Ok();
  }
  PENSTOCK_ASSIGN_OR_RETURN(const int threads, ParseThreads(name, value));
  // The engine's CPU device compiles on threads of its own and takes no number for them.
  if (name == "INFERENCE_NUM_THREADS") settings->inference_threads = threads;
  return Status::Ok();
}

Status ParseOne(const std::string& name, const std::string& value, Settings* settings) {
  if (name.starts_with("NUM_") || name.ends_with("_NUM_THREADS")) {
    return ParseThreading(name, value, settings);
  }
  if (name == "PERFORMANCE_HINT") {
    PENSTOCK_ASSIGN_OR_RETURN(settings->hint, ParseHint(name, value));
  } else if (name == "INFERENCE_PRECISION_HINT") {
    PENSTOCK_ASSIGN_OR_RETURN(settings->precision, ParsePrecision(name, value));
  } else if (name == "HINT_BF16") {
    PENSTOCK_ASSIGN_OR_RETURN(const bool is_on, ParseYes(name, value));
    if (is_on) settings->precision = Precision::kBf16;
  } else if (name == "TARGET_DEVICE") {
    if (UpperCase(value) == "CPU") return Status::Ok();
    return Unimplemented(StrCat(Label(name), ": device '", value,
                                "' is not supported, the backend runs models on the CPU"));
  } else {
    // How Triton works around fixed batch sizes. Batches here run at the size they have, so there is
    // nothing to skip and nothing to pad; a reshape is said by the parameters for each input.
    return ParseYes(name, value).status();
  }
  return Status::Ok();
}

}  // namespace

Result<Settings> ParseSettings(const std::map<std::string, std::string>& parameters) {
  Settings settings;
  for (const auto& [name, value] : parameters) {
    if (std::find(kParameters.begin(), kParameters.end(), name) != kParameters.end()) {
      PENSTOCK_RETURN_IF_ERROR(ParseOne(name, value, &settings));
    } else if (IsShape(name)) {
      PENSTOCK_RETURN_IF_ERROR(ParseShape(name, value, &settings));
    } else if (name == "CPU_EXTENSION_PATH") {
      return Unimplemented(Label(name) +
                           " is not supported: a model's configuration loads no libraries");
    } else if (LooksLikeOurs(name)) {
      return Unknown(name);
    }
  }
  const auto reshape = parameters.find(std::string(kReshape));
  if (reshape != parameters.end() && UpperCase(reshape->second) == "YES" &&
      settings.shapes.empty()) {
    return Bad(kReshape, reshape->second, "a configuration that lists the inputs with it");
  }
  return settings;
}

}  // namespace penstock::openvino
