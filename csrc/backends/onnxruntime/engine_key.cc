#include "backends/onnxruntime/engine_key.h"

#include <fstream>
#include <sstream>
#include <string_view>

#include "base/sha256.h"
#include "base/strcat.h"

namespace penstock::ort {
namespace {

std::string Hex(const Sha256Digest& digest) {
  static constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

// Each part with its length: no two lists of parts are one text.
class Parts {
 public:
  void Add(std::string_view part) { text_ += StrCat(part.size(), ":", part, ","); }
  std::string Digest() const { return Hex(Sha256(text_)); }

 private:
  std::string text_;
};

}  // namespace

Result<std::string> EngineKey(const std::string& engine_version, const LoadOptions& options,
                              const ModelFileFacts& facts, const GpuSettings& settings,
                              const gpu::DeviceProperties& device) {
  std::ifstream file(options.path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  if (!file) return InvalidArgument(StrCat(ModelLabel(options), ": its file cannot be read"));
  Parts parts;
  parts.Add(Hex(Sha256(bytes.str())));
  PENSTOCK_ASSIGN_OR_RETURN(const auto external, ReadExternalData(options, facts.locations));
  for (const ExternalData& data : external) {
    parts.Add(data.location);
    parts.Add(Hex(Sha256({data.bytes.get(), data.size})));
  }
  for (const ProviderSettings& provider : settings.providers) {
    parts.Add(ProviderName(provider.provider));
    for (const auto& [name, value] : provider.values) parts.Add(StrCat(name, "=", value));
  }
  parts.Add(std::to_string(settings.ranges.max_rows));
  for (const auto& [name, rank] : settings.ranges.listed_ranks) {
    parts.Add(StrCat("listed ", name, " ", rank));
  }
  for (const auto& [name, range] : settings.ranges.ranges) {
    parts.Add(
        StrCat(name, range.least.ToString(), range.likely.ToString(), range.greatest.ToString()));
  }
  parts.Add(engine_version);
  parts.Add(StrCat(device.name, " ", device.compute_major, ".", device.compute_minor, " ",
                   device.multiprocessors));
  return parts.Digest();
}

}  // namespace penstock::ort
