#include "backends/tensorrt/plan_settings.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <sstream>
#include <utility>

#include "base/strcat.h"

namespace penstock::tensorrt {
namespace {

constexpr uint64_t kMaxLanes = 4;
constexpr uint64_t kMaxGraphMb = 1 << 20;
constexpr uint64_t kMaxGraphRows = 1 << 20;
constexpr size_t kBytesPerMb = size_t{1} << 20;
constexpr uint64_t kMaxRank = 1 << 10;

std::vector<std::string> Split(const std::string& value) {
  std::vector<std::string> parts;
  std::istringstream text(value);
  for (std::string part; std::getline(text, part, ',');) parts.push_back(part);
  return parts;
}

// Threading: thread-compatible.
class Reader {
 public:
  Reader(std::string_view backend, PlanSettings settings)
      : backend_(backend), settings_(std::move(settings)) {}

  Status Read(const std::string& name, const std::string& value);
  PlanSettings Finish() {
    if (!has_graphs_) settings_.graph_budget_bytes = 0;
    return std::move(settings_);
  }

 private:
  Result<uint64_t> ReadNumber(const std::string& name, const std::string& value, uint64_t least,
                              uint64_t most) const;
  Status ReadDevices(const std::string& value);
  Status ReadGraphRows(const std::string& value);

  const std::string_view backend_;
  PlanSettings settings_;
  bool has_graphs_ = true;
};

Result<uint64_t> Reader::ReadNumber(const std::string& name, const std::string& value,
                                    uint64_t least, uint64_t most) const {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error == std::errc() && end == value.data() + value.size() && least <= number &&
      number <= most) {
    return number;
  }
  return InvalidArgument(StrCat("parameter '", name, "' of the ", backend_,
                                " backend: expected a number from ", least, " to ", most, ", got '",
                                value, "'"));
}

Status Reader::ReadDevices(const std::string& value) {
  settings_.devices = Split(value);
  const std::set<std::string> distinct(settings_.devices.begin(), settings_.devices.end());
  if (!distinct.empty() && distinct.size() == settings_.devices.size() && !distinct.contains("")) {
    return Status::Ok();
  }
  return InvalidArgument(StrCat("parameter 'device' of the ", backend_,
                                " backend: expected numbers or UUIDs of GPUs, each once, with "
                                "commas, got '",
                                value, "'"));
}

Status Reader::ReadGraphRows(const std::string& value) {
  for (const std::string& part : Split(value)) {
    PENSTOCK_ASSIGN_OR_RETURN(const uint64_t rows,
                              ReadNumber("graph_batch_sizes", part, 1, kMaxGraphRows));
    settings_.graph_rows.push_back(static_cast<uint32_t>(rows));
  }
  return Status::Ok();
}

Status Reader::Read(const std::string& name, const std::string& value) {
  if (name == "device") {
    return ReadDevices(value);
  } else if (name == "lanes") {
    PENSTOCK_ASSIGN_OR_RETURN(settings_.lanes, ReadNumber(name, value, 1, kMaxLanes));
  } else if (name == "cuda_graphs") {
    PENSTOCK_ASSIGN_OR_RETURN(const uint64_t wants, ReadNumber(name, value, 0, 1));
    has_graphs_ = wants == 1;
  } else if (name == "graph_batch_sizes") {
    return ReadGraphRows(value);
  } else if (name == "graph_memory_mb") {
    PENSTOCK_ASSIGN_OR_RETURN(const uint64_t mb, ReadNumber(name, value, 0, kMaxGraphMb));
    settings_.graph_budget_bytes = mb * kBytesPerMb;
  } else if (name == "max_batch_size") {
    settings_.batches = value != "0";
  } else if (name.starts_with(kListedRank)) {
    PENSTOCK_ASSIGN_OR_RETURN(const uint64_t rank, ReadNumber(name, value, 0, kMaxRank));
    settings_.listed_ranks[name.substr(kListedRank.size())] = rank;
  }
  return Status::Ok();
}

}  // namespace

Result<PlanSettings> ReadPlanSettings(std::string_view backend,
                                      const std::map<std::string, std::string>& parameters,
                                      PlanSettings settings) {
  Reader reader(backend, std::move(settings));
  for (const auto& [name, value] : parameters) {
    PENSTOCK_RETURN_IF_ERROR(reader.Read(name, value));
  }
  return reader.Finish();
}

}  // namespace penstock::tensorrt
