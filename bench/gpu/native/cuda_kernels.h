// Our kernels on CUDA, and an engine of one of them.

#pragma once

#include <memory>

#include "gpu/device_engine.h"
#include "gpu_bench.h"

namespace penstock::gpu {

std::unique_ptr<Kernels> MakeCudaKernels();

// Images in, normalised out, up to 64 of them.
std::unique_ptr<DeviceEngine> MakeNormaliseEngine();

}  // namespace penstock::gpu
