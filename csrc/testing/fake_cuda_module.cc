// The entry of a CUDA module whose two GPUs are fake (gpu/api_module.h), for servers that tests
// start.

#include "gpu/api_module.h"
#include "testing/fake_gpu.h"

extern "C" __attribute__((visibility("default")))
penstock::Result<std::unique_ptr<penstock::gpu::Api>>
penstock_cuda_api_v1() {
  return std::unique_ptr<penstock::gpu::Api>(
      std::make_unique<penstock::FakeGpu>(penstock::FakeGpuOptions{.devices = 2}));
}
