#include "backends/python/settings.h"

#include <charconv>
#include <system_error>

#include "base/strcat.h"

namespace penstock::python {
namespace {

constexpr double kMaxSeconds = 7 * 86'400;
constexpr uint64_t kMaxMebibytes = uint64_t{1} << 30;
constexpr uint32_t kMaxRestarts = 1'000;

// Sets `value` from the parameter where there is one.
template <typename T>
Status Read(const std::map<std::string, std::string>& parameters, const std::string& name, T most,
            T* value) {
  const auto found = parameters.find(name);
  if (found == parameters.end()) return Status::Ok();
  const std::string& text = found->second;
  T read{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), read);
  if (error != std::errc() || end != text.data() + text.size() || !(read >= T{} && read <= most)) {
    return InvalidArgument(StrCat("parameters['", name, "']: expected a number from 0 to ", most,
                                  ", got '", text, "'"));
  }
  *value = read;
  return Status::Ok();
}

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
  PENSTOCK_RETURN_IF_ERROR(
      Read(parameters, "execution_limit_s", kMaxSeconds, &settings.execution_limit_s));
  PENSTOCK_RETURN_IF_ERROR(Read(parameters, "load_limit_s", kMaxSeconds, &settings.load_limit_s));
  PENSTOCK_RETURN_IF_ERROR(
      Read(parameters, "memory_limit_mb", kMaxMebibytes, &settings.memory_limit_mb));
  PENSTOCK_RETURN_IF_ERROR(Read(parameters, "max_restarts", kMaxRestarts, &settings.max_restarts));
  PENSTOCK_RETURN_IF_ERROR(
      Read(parameters, "restart_window_s", kMaxSeconds, &settings.restart_window_s));
  return settings;
}

}  // namespace penstock::python
