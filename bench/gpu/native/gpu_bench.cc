// gpu_bench copies|launches|lanes: figures of the first GPU, a line of JSON each. bench/gpu reads
// them.

#include "gpu_bench.h"

#include <memory>
#include <string_view>

#include "cuda_kernels.h"
#include "gpu/cuda_api.h"

int main(int argc, char** argv) {
  namespace gpu = penstock::gpu;
  const std::string_view part = argc == 2 ? argv[1] : "";
  if (part != "copies" && part != "launches" && part != "lanes") {
    std::fprintf(stderr, "usage: gpu_bench copies|launches|lanes\n");
    return 2;
  }
  auto opened = gpu::OpenCudaApi();
  if (!opened.ok()) {
    std::fprintf(stderr, "gpu_bench: %s\n", opened.status().ToString().c_str());
    return 3;
  }
  const std::unique_ptr<gpu::Api> api = *std::move(opened);
  const auto kernels = gpu::MakeCudaKernels();
  CHECK_SUCCESS(api->SetDevice(0));
  if (part == "copies") gpu::MeasureCopies(*api, *kernels, /*rounds=*/50);
  if (part == "launches") gpu::MeasureLaunches(*api, *kernels, /*rounds=*/200);
  if (part == "lanes") {
    gpu::MeasureLanes(*api, *gpu::MakeNormaliseEngine(), /*rounds=*/5, /*batches=*/1000);
  }
  return 0;
}
