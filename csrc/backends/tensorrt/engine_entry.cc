// The entry of penstock_tensorrt_engine_<major>_<minor>.so (engine_module.h).

#include <exception>
#include <memory>
#include <new>
#include <string>

#include "backends/backend.h"
#include "backends/tensorrt/nvinfer_runtime.h"
#include "backends/tensorrt/plan_backend.h"
#include "base/clock.h"
#include "base/strcat.h"
#include "gpu/cuda_api.h"
#include "gpu/device_health.h"

namespace penstock::tensorrt {
namespace {

// A context on the first device, which TensorRT's runtime makes otherwise: on a device that is full, or
// another process's alone, it logs a number and answers a pointer to nothing.
Status TakeFirstDevice(gpu::Api& api) {
  gpu::DeviceHealth health(api, "GPU 0");
  Status taken = health.Check(api.SetDevice(0), "take the device");
  if (taken.ok() || taken.code() == StatusCode::kResourceExhausted) return taken;
  return Unavailable(std::string(taken.message()));
}

// CUDA's own answers come before TensorRT's first call, as in the probe.
Result<std::unique_ptr<Backend>> Start(const BackendOptions& options) {
  const auto library = options.find("library");
  if (library == options.end()) return FailedPrecondition("it was not told its library");
  const auto host_code = options.find("host_code");
  auto api = gpu::OpenCudaApi();
  if (!api.ok()) return api.status();
  PENSTOCK_RETURN_IF_ERROR(TakeFirstDevice(**api));
  const auto place = options.find("place");
  PENSTOCK_ASSIGN_OR_RETURN(
      auto runtime, OpenNvinfer(library->second, place == options.end() ? "" : place->second));
  return std::unique_ptr<Backend>(std::make_unique<PlanBackend>(
      PlanBackendParts{*std::move(api), std::move(runtime)}, Clock::System(),
      host_code != options.end() && host_code->second == "1"));
}

}  // namespace
}  // namespace penstock::tensorrt

extern "C" __attribute__((visibility("default")))
penstock::Result<std::unique_ptr<penstock::Backend>>
penstock_tensorrt_engine_v1(const penstock::BackendOptions& options) {
  try {
    return penstock::tensorrt::Start(options);
  } catch (const std::bad_alloc&) {
    return penstock::ResourceExhausted("TensorRT cannot be started: out of memory");
  } catch (const std::exception& error) {
    return penstock::Internal(penstock::StrCat("TensorRT cannot be started: ", error.what()));
  }
}
