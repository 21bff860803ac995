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

cudaError_t LaunchRowWork(const RowWork& work, cudaStream_t stream) {
  const size_t blocks = work.rows * work.width / kThreads + 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks));
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, RowKernel, work);
}

}  // namespace penstock
