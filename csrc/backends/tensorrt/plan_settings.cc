#include "backends/tensorrt/plan_settings.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <sstream>

#include "base/strcat.h"

namespace penstock::tensorrt {
namespace {

constexpr uint64_t kMaxLanes = 4;
constexpr uint64_t kMaxGraphMb = 1 << 20;
constexpr uint64_t kMaxGraphRows = 1 << 20;
constexpr size_t kBytesPerMb = size_t{1} << 20;

Result<uint64_t> ReadNumber(const std::string& name, const std::string& value, uint64_t least,
                            uint64_t most) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error == std::errc() && end == value.data() + value.size() && least <= number &&
      number <= most) {
    return number;
  }
  return InvalidArgument(StrCat("parameter '", name,
                                "' of the tensorrt backend: expected a number from ", least, " to ",
                                most, ", got '", value, "'"));
}

std::vector<std::string> Split(const std::string& value) {
  std::vector<std::string> parts;
  std::istringstream text(value);
  for (std::string part; std::getline(text, part, ',');) parts.push_back(part);
  return parts;
}

Status ReadDevices(const std::string& value, PlanSettings* settings) {
  settings->devices = Split(value);
  const std::set<std::string> distinct(settings->devices.begin(), settings->devices.end());
  if (!distinct.empty() && distinct.size() == settings->devices.size() && !distinct.contains("")) {
    return Status::Ok();
  }
  return InvalidArgument(
      StrCat("parameter 'device' of the tensorrt backend: expected numbers or "
             "UUIDs of GPUs, each once, with commas, got '",
             value, "'"));
}

Status ReadGraphRows(const std::string& value, PlanSettings* settings) {
  for (const std::string& part : Split(value)) {
    PENSTOCK_ASSIGN_OR_RETURN(const uint64_t rows,
                              ReadNumber("graph_batch_sizes", part, 1, kMaxGraphRows));
    settings->graph_rows.push_back(static_cast<uint32_t>(rows));
  }
  return Status::Ok();
}

}  // namespace

Result<PlanSettings> ReadPlanSettings(const std::map<std::string, std::string>& parameters) {
  PlanSettings settings;
  bool has_graphs = true;
  for (const auto& [name, value] : parameters) {
    if (name == "device") {
      PENSTOCK_RETURN_IF_ERROR(ReadDevices(value, &settings));
    } else if (name == "lanes") {
      PENSTOCK_ASSIGN_OR_RETURN(settings.lanes, ReadNumber(name, value, 1, kMaxLanes));
    } else if (name == "cuda_graphs") {
      PENSTOCK_ASSIGN_OR_RETURN(const uint64_t wants, ReadNumber(name, value, 0, 1));
      has_graphs = wants == 1;
    } else if (name == "graph_batch_sizes") {
      PENSTOCK_RETURN_IF_ERROR(ReadGraphRows(value, &settings));
    } else if (name == "graph_memory_mb") {
      PENSTOCK_ASSIGN_OR_RETURN(const uint64_t mb, ReadNumber(name, value, 0, kMaxGraphMb));
      settings.graph_budget_bytes = mb * kBytesPerMb;
    }
  }
  if (!has_graphs) settings.graph_budget_bytes = 0;
  return settings;
}

}  // namespace penstock::tensorrt
