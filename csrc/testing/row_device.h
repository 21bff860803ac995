// RowDevice: GPUs that RowWork's kernel runs on, and how they are called. row_device_fake.cc has fake
// ones, row_device_cuda.cc, built where CUDA's compiler is, those of the machine: what is linked with
// the one or the other is the same.

#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "gpu/driver_api.h"
#include "gpu/gpu_api.h"
#include "testing/row_work.h"

namespace penstock {

// By CUDA's runtime (fake: a FakeGpu of its own), or by the driver alone (fake: the driver that is made
// for tests, and its GPUs).
enum class RowApi { kRuntime, kDriver };

struct RowDevice {
  std::unique_ptr<gpu::Api> api;
  RowLaunch launch;  // REQUIRES: this thread has a device (Api::SetDevice)
};

// UNAVAILABLE where there is none.
Result<RowDevice> OpenRowDevice(RowApi which, const std::string& driver = gpu::kDriverLibrary);

}  // namespace penstock
