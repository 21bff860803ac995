// The plug-in's entry: preflight in a child process, then the adapter that is compiled with
// TensorRT's headers.

#include <exception>
#include <memory>
#include <new>
#include <string>

#include "backends/backend.h"
#include "backends/tensorrt/engine_module.h"
#include "base/strcat.h"

extern "C" __attribute__((visibility("default")))
penstock::Result<std::unique_ptr<penstock::Backend>>
penstock_backend_v6(const penstock::BackendOptions& options) {
  try {
    return penstock::tensorrt::StartEngine(options);
  } catch (const std::bad_alloc&) {
    return penstock::ResourceExhausted("the tensorrt backend cannot start: out of memory");
  } catch (const std::exception& error) {
    return penstock::Internal(
        penstock::StrCat("the tensorrt backend cannot start: ", error.what()));
  }
}
