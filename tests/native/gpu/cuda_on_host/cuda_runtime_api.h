// What kernels.cu uses of CUDA, for the host's compiler: a launch is a loop over the threads of its
// grid, on the thread that launches. Sizes that a device would refuse are refused.

#pragma once

#include <cstddef>
#include <vector>

#define __global__
#define __launch_bounds__(threads)

enum cudaError_t : int {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
};

using cudaStream_t = struct CUstream_st*;

struct dim3 {
  // Converts, as CUDA's does.
  constexpr dim3(unsigned x_size = 1, unsigned y_size = 1, unsigned z_size = 1)
      : x(x_size), y(y_size), z(z_size) {}
  unsigned x, y, z;
};

inline thread_local dim3 gridDim, blockIdx, threadIdx;

struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

namespace cuda_on_host {

// This thread's launches, for tests.
struct Launches {
  bool are_run = true;  // false: they are only written down, however large
  std::vector<cudaLaunchConfig_t> all;
};
inline thread_local Launches launches;

// As of every device that we build for.
inline bool CanLaunch(const cudaLaunchConfig_t& config) {
  const dim3& grid = config.gridDim;
  return grid.x >= 1 && grid.x <= 0x7fffffffU && grid.y >= 1 && grid.y <= 65535 && grid.z == 1 &&
         config.blockDim.x >= 1 && config.blockDim.x <= 1024 && config.blockDim.y == 1 &&
         config.blockDim.z == 1;
}

}  // namespace cuda_on_host

template <typename... Params, typename... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...),
                               Args... args) {
  if (!cuda_on_host::CanLaunch(*config)) return cudaErrorInvalidConfiguration;
  cuda_on_host::launches.all.push_back(*config);
  if (!cuda_on_host::launches.are_run) return cudaSuccess;
  gridDim = config->gridDim;
  for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y) {
    for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) {
      for (threadIdx.x = 0; threadIdx.x < config->blockDim.x; ++threadIdx.x) kernel(args...);
    }
  }
  return cudaSuccess;
}
