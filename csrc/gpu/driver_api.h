// The CUDA driver as an Api: libcuda.so.1, opened at run time, and nothing else of CUDA's. It needs no
// toolkit to be built, and works beside any version of CUDA's runtime: both use a device's primary
// context.

#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "gpu/gpu_api.h"

namespace penstock::gpu {

inline constexpr const char* kDriverLibrary = "libcuda.so.1";

// Opens the driver, never to close it, and finds its devices. UNAVAILABLE, without paths, where there
// is none, it lacks a function that is called here (11.4 has them all), or finds no device.
// Blocking: while the driver starts.
Result<std::unique_ptr<Api>> OpenDriverApi(const std::string& library = kDriverLibrary);

// The latest CUDA that the driver knows, as CUDA counts (12020: 12.2); 0: there is no driver.
int DriverCudaVersion(const std::string& library = kDriverLibrary);

}  // namespace penstock::gpu
