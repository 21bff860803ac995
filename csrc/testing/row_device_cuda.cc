#include <utility>

#include "base/strcat.h"
#include "gpu/cuda_api.h"
#include "testing/row_device.h"
#include "testing/row_launch.h"

namespace penstock {
namespace {

// By CUDA's runtime whatever called for the stream: a stream of the driver's is one of the runtime's, and
// both use a device's primary context.
Status Launch(gpu::Stream stream, const RowWork& work) {
  const char* error = LaunchRowWork(work, stream);
  if (error == nullptr) return Status::Ok();
  return Internal(StrCat("the plan's kernel failed: ", error));
}

}  // namespace

Result<RowDevice> OpenRowDevice(RowApi which, const std::string& driver) {
  PENSTOCK_ASSIGN_OR_RETURN(
      auto api, which == RowApi::kDriver ? gpu::OpenDriverApi(driver) : gpu::OpenCudaApi());
  return RowDevice{std::move(api), Launch};
}

}  // namespace penstock
