#include "backends/python/settings.h"

#include "base/strcat.h"
#include "worker/worker_limits.h"

namespace penstock::python {
namespace {

constexpr uint64_t kMaxMebibytes = uint64_t{1} << 30;
constexpr uint32_t kMaxRestarts = 1'000;

}  // namespace

Result<BackendSettings> ReadBackendSettings(const BackendOptions& options) {
  BackendSettings settings;
  for (const auto& [name, value] : options) {
    if (name == "interpreter") {
      settings.interpreter = value;
    } else if (name == "runtime") {
      settings.runtime = value;
    } else {
      return InvalidArgument(StrCat("option '", name,
                                    "' is not known to the python backend; known are interpreter, "
                                    "runtime"));
    }
  }
  if (settings.interpreter.empty() || settings.runtime.empty()) {
    return InvalidArgument(
        "the python backend needs the options interpreter and runtime, which the server gives it");
  }
  return settings;
}

Result<ModelSettings> ReadModelSettings(const std::map<std::string, std::string>& parameters) {
  ModelSettings settings;
  if (parameters.contains("EXECUTION_ENV_PATH")) {
    return InvalidArgument(
        "parameters['EXECUTION_ENV_PATH'] is not supported: a model's own environment is made from "
        "a requirements.lock in its directory");
  }
  if (const auto found = parameters.find("PENSTOCK_INTERPRETER"); found != parameters.end()) {
    settings.interpreter = found->second;
  }
  PENSTOCK_RETURN_IF_ERROR(ReadWorkerLimits(parameters, &settings.limits));
  PENSTOCK_RETURN_IF_ERROR(
      ReadNumber(parameters, "memory_limit_mb", kMaxMebibytes, &settings.memory_limit_mb));
  PENSTOCK_RETURN_IF_ERROR(
      ReadNumber(parameters, "max_restarts", kMaxRestarts, &settings.max_restarts));
  PENSTOCK_RETURN_IF_ERROR(
      ReadNumber(parameters, "restart_window_s", kMaxWorkerSeconds, &settings.restart_window_s));
  return settings;
}

}  // namespace penstock::python
