// The entry of libpenstock_cuda_api.so (api_module.h).

#include <exception>

#include "base/strcat.h"
#include "gpu/cuda_api.h"

extern "C" __attribute__((visibility("default")))
penstock::Result<std::unique_ptr<penstock::gpu::Api>>
penstock_cuda_api_v1() {
  try {
    return penstock::gpu::OpenCudaApi();
  } catch (const std::exception& error) {
    return penstock::Unavailable(penstock::StrCat("CUDA cannot be started: ", error.what()));
  }
}
