// gpu_bench copies|launches|lanes: figures of the first GPU, a line of JSON each. bench/gpu reads
// them.

#include "gpu_bench.h"

#include <memory>
#include <string_view>

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
  CHECK_SUCCESS(api->SetDevice(0));
  if (part == "copies") gpu::MeasureCopies(*api);
  if (part == "launches") gpu::MeasureLaunches(*api);
  if (part == "lanes") gpu::MeasureLanes(*api);
  return 0;
}
