// The entry of the module that is linked with OpenVINO (engine_library.h).

#include <memory>

#include "backends/backend.h"
#include "backends/openvino/engine_error.h"
#include "backends/openvino/openvino_backend.h"

extern "C" __attribute__((visibility("default")))
penstock::Result<std::unique_ptr<penstock::Backend>>
penstock_openvino_engine_v1(const penstock::BackendOptions& /*options*/) {
  return penstock::openvino::Guard<std::unique_ptr<penstock::Backend>>(
      "the openvino backend cannot start",
      [] { return penstock::openvino::OpenVinoBackend::Start(); });
}
