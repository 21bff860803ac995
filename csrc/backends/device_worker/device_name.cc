#include "backends/device_worker/device_name.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>
#include <vector>

#include "base/strcat.h"

namespace penstock {
namespace {

constexpr size_t kMaxUuidBytes = 64;

std::optional<size_t> Number(std::string_view text) {
  size_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

bool IsUuid(std::string_view text) {
  const bool has_prefix = text.starts_with("GPU-") || text.starts_with("MIG-");
  return has_prefix && text.size() > 4 && text.size() <= kMaxUuidBytes &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '-' || c == '/';  // MIG-GPU-.../1/0, of old drivers
         });
}

std::vector<std::string_view> Entries(std::string_view list) {
  std::vector<std::string_view> entries;
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    std::string_view entry = list.substr(0, comma);
    list.remove_prefix(std::min(comma + 1, list.size()));
    while (entry.starts_with(' ')) entry.remove_prefix(1);
    while (entry.ends_with(' ')) entry.remove_suffix(1);
    if (!Number(entry) && !IsUuid(entry)) break;  // CUDA sees none from there on
    entries.push_back(entry);
  }
  return entries;
}

}  // namespace

Result<SeenDevice> FindDevice(std::string_view device, const char* visible) {
  const auto number = Number(device);
  if (!number && !IsUuid(device)) {
    return InvalidArgument(StrCat("'", device, "' is no device, expected a number or a UUID"));
  }
  if (visible == nullptr) return SeenDevice{std::string(device), number};
  const std::vector<std::string_view> entries = Entries(visible);
  if (number) {
    if (*number < entries.size()) return SeenDevice{std::string(entries[*number]), number};
    return FailedPrecondition(StrCat("there is no GPU ", device, ": the server sees ",
                                     entries.size(), " (CUDA_VISIBLE_DEVICES)"));
  }
  const auto is_meant = [&](std::string_view entry) {  // either may be cut short
    return entry.starts_with(device) || device.starts_with(entry);
  };
  const auto found = std::find_if(entries.begin(), entries.end(), is_meant);
  if (std::count_if(found, entries.end(), is_meant) == 1) {
    return SeenDevice{std::string(*found), found - entries.begin()};
  }
  // Which UUID a number stands for only the driver knows.
  const bool may_see =
      found != entries.end() || std::any_of(entries.begin(), entries.end(), Number);
  if (may_see) return SeenDevice{std::string(device), std::nullopt};
  return FailedPrecondition(StrCat("there is no GPU '", device, "': the server sees ",
                                   entries.size(), " others (CUDA_VISIBLE_DEVICES)"));
}

std::string DeviceLabel(std::string_view device) {
  return Number(device) ? StrCat("GPU ", device) : std::string(device);
}

}  // namespace penstock
