// The CUDA runtime as an Api. Built where CMake finds CUDA's toolkit
// (csrc/cmake/PenstockCuda.cmake); only what is built with it includes this.

#pragma once

#include <memory>

#include "base/status.h"
#include "gpu/gpu_api.h"

namespace penstock::gpu {

// Opens the runtime and finds its devices. UNAVAILABLE where there is no driver, none that is new
// enough, or no device: no other call of CUDA has been made by then.
Result<std::unique_ptr<Api>> OpenCudaApi();

}  // namespace penstock::gpu
