// Limits in time of what a worker does for a model, from the model's parameters.

#pragma once

#include <charconv>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <system_error>

#include "base/status.h"
#include "base/strcat.h"

namespace penstock {

inline constexpr double kMaxWorkerSeconds = 7 * 86'400;

// Sets `value` from a model's parameter where there is one. INVALID_ARGUMENT naming it, what was
// expected and what came.
template <typename T>
Status ReadNumber(const std::map<std::string, std::string>& parameters, const std::string& name,
                  T most, T* value) {
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

inline constexpr const char* kExecutionLimit = "execution_limit_s";
inline constexpr const char* kLoadLimit = "load_limit_s";

struct WorkerLimits {
  // How long one batch may take; 0 = for ever. On by default: a model that hangs would otherwise keep
  // its instance for good, and nobody waits ten minutes for one answer.
  double execution_limit_s = 600;
  double load_limit_s = 600;  // for each step of a load; 0 = for ever
};

inline Status ReadWorkerLimits(const std::map<std::string, std::string>& parameters,
                               WorkerLimits* limits) {
  PENSTOCK_RETURN_IF_ERROR(
      ReadNumber(parameters, kExecutionLimit, kMaxWorkerSeconds, &limits->execution_limit_s));
  return ReadNumber(parameters, kLoadLimit, kMaxWorkerSeconds, &limits->load_limit_s);
}

// "0.5": for messages.
inline std::string Seconds(int64_t ns) {
  std::string text = std::to_string(static_cast<double>(ns) / 1e9);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

inline int64_t Nanoseconds(double seconds) { return static_cast<int64_t>(seconds * 1e9); }

}  // namespace penstock
