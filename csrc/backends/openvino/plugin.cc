// The plug-in's entry: opens the engine, then the module that is linked with it.

#include <exception>
#include <memory>
#include <new>
#include <string>

#include "backends/backend.h"
#include "backends/openvino/engine_library.h"
#include "base/strcat.h"

extern "C" __attribute__((visibility("default")))
penstock::Result<std::unique_ptr<penstock::Backend>>
penstock_backend_v6(const penstock::BackendOptions& options) {
  try {
    return penstock::openvino::StartEngine(options);
  } catch (const std::bad_alloc&) {
    return penstock::ResourceExhausted("the openvino backend cannot start: out of memory");
  } catch (const std::exception& error) {
    return penstock::Internal(
        penstock::StrCat("the openvino backend cannot start: ", error.what()));
  }
}
