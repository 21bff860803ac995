// OpenApiModule: CUDA's runtime as an Api, from a module of its own: libpenstock.so is not linked
// with CUDA, and what needs it asks here.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "gpu/gpu_api.h"

namespace penstock::gpu {

// The module's only exported symbol, of type ApiEntry. The version in its name goes up with any
// change to gpu_api.h.
using ApiEntry = Result<std::unique_ptr<Api>> (*)();
inline constexpr const char* kApiEntry = "penstock_cuda_api_v1";
inline constexpr const char* kApiModule = "libpenstock_cuda_api.so";

// Opens the module in the last of `directories` that has it, never to close it, and calls its
// entry. (What an operator names comes behind the package's own.)
// Status: UNAVAILABLE, without paths, where there is no module (a build without CUDA's toolkit has
// none) or it does not open; or what the entry answers: see OpenCudaApi.
// Blocking: while the driver starts.
Result<std::unique_ptr<Api>> OpenApiModule(const std::vector<std::string>& directories);

}  // namespace penstock::gpu
