#include "backends/openvino/openvino_backend.h"

#include <algorithm>
#include <openvino/core/version.hpp>
#include <vector>

#include "backends/openvino/engine_error.h"
#include "backends/openvino/openvino_model.h"
#include "base/strcat.h"

namespace penstock::openvino {
namespace {

// "2026.4.1" of "2026.4.1-22982-e213a147257-releases/2026/4".
std::string EngineVersion() {
  const std::string build = ov::get_openvino_version().buildNumber;
  return build.substr(0, build.find('-'));
}

}  // namespace

OpenVinoBackend::OpenVinoBackend() : description_(StrCat("OpenVINO ", EngineVersion())) {}

Result<std::unique_ptr<Backend>> OpenVinoBackend::Start() {
  if (const std::string version = EngineVersion(); version != PENSTOCK_OPENVINO_VERSION) {
    return FailedPrecondition(StrCat("OpenVINO ", version, " was found where the openvino backend ",
                                     "was built with ", PENSTOCK_OPENVINO_VERSION));
  }
  std::unique_ptr<OpenVinoBackend> backend(new OpenVinoBackend);
  const std::vector<std::string> devices = backend->core_.get_available_devices();
  if (std::find(devices.begin(), devices.end(), "CPU") == devices.end()) {
    return FailedPrecondition(StrCat(backend->description_, " does not run on this CPU"));
  }
  return std::unique_ptr<Backend>(std::move(backend));
}

Result<std::unique_ptr<BackendModel>> OpenVinoBackend::Load(const LoadOptions& options) {
  return Guard<std::unique_ptr<BackendModel>>(ModelLabel(options) + " cannot be loaded", [&] {
    return OpenVinoModel::Load(core_, frontends_, options);
  });
}

}  // namespace penstock::openvino
