#include "backends/tensorrt/plan_backend.h"

#include <cstdint>
#include <exception>
#include <fstream>
#include <new>
#include <vector>

#include "backends/tensorrt/plan_model.h"
#include "base/strcat.h"

namespace penstock::tensorrt {
namespace {

std::string LabelOf(const LoadOptions& options) {
  return StrCat("model '", options.model_name, "' version ", options.version);
}

// Read, not mapped: a file that is cut short must not end the server.
Result<std::vector<uint8_t>> ReadPlanFile(const LoadOptions& options) {
  std::ifstream file(options.path, std::ios::binary | std::ios::ate);
  if (!file) return NotFound(StrCat(LabelOf(options), ": its plan cannot be opened"));
  const std::streamoff size = file.tellg();
  if (size <= 0) return InvalidArgument(StrCat(LabelOf(options), ": its plan is empty"));
  std::vector<uint8_t> bytes(static_cast<size_t>(size));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(bytes.data()), size);
  if (!file) return InvalidArgument(StrCat(LabelOf(options), ": its plan cannot be read whole"));
  return bytes;
}

}  // namespace

Result<std::unique_ptr<BackendModel>> PlanBackend::Load(const LoadOptions& options) {
  try {
    const std::string label = LabelOf(options);
    auto settings = ReadPlanSettings("tensorrt", options.parameters);
    if (!settings.ok()) {
      return Status(settings.status().code(), StrCat(label, ": ", settings.status().message()));
    }
    PENSTOCK_ASSIGN_OR_RETURN(const auto bytes, ReadPlanFile(options));
    return PlanModel::Load(devices_, label, *settings, [&](const DeviceTable::Found&) {
      return parts_.runtime->Read(bytes, allows_host_code_);
    });
  } catch (const std::bad_alloc&) {
    return ResourceExhausted(StrCat(LabelOf(options), " cannot be loaded: out of memory"));
  } catch (const std::exception& error) {
    return Internal(StrCat(LabelOf(options), " cannot be loaded: ", error.what()));
  }
}

}  // namespace penstock::tensorrt
