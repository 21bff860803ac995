#include "testing/row_launch.h"

namespace penstock {
namespace {

constexpr unsigned kThreads = 256;
constexpr size_t kMaxBlocks = 1024;  // then a thread does several elements

__global__ void __launch_bounds__(kThreads) RowKernel(RowWork work) {
  const size_t thread = size_t{blockIdx.x} * kThreads + threadIdx.x;
  if (!RunRowWork(work, thread, size_t{gridDim.x} * kThreads)) __trap();
}

}  // namespace

const char* LaunchRowWork(const RowWork& work, void* stream) {
  const size_t blocks = work.rows * work.width / kThreads + 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks));
  config.blockDim = dim3(kThreads);
  config.stream = static_cast<cudaStream_t>(stream);
  const cudaError_t error = cudaLaunchKernelEx(&config, RowKernel, work);
  return error == cudaSuccess ? nullptr : cudaGetErrorName(error);
}

}  // namespace penstock
