#include "gpu/kernels/kernels.h"

namespace penstock::gpu {
namespace {

constexpr unsigned kThreads = 256;
constexpr size_t kMaxGridX = 0x7fffffff;
constexpr size_t kMaxGridY = 65535;
constexpr size_t kMaxBlocksForRow = 64;

__global__ void __launch_bounds__(kThreads)
    GatherKernel(uint8_t* to, const void* const* from, size_t row_bytes) {
  const size_t row = blockIdx.x;
  CopyRow(to + row * row_bytes, static_cast<const uint8_t*>(from[row]), row_bytes,
          size_t{blockIdx.y} * kThreads + threadIdx.x, size_t{gridDim.y} * kThreads);
}

__global__ void __launch_bounds__(kThreads)
    ScatterKernel(void* const* to, const uint8_t* from, size_t row_bytes) {
  const size_t row = blockIdx.x;
  CopyRow(static_cast<uint8_t*>(to[row]), from + row * row_bytes, row_bytes,
          size_t{blockIdx.y} * kThreads + threadIdx.x, size_t{gridDim.y} * kThreads);
}

template <typename To, typename From>
__global__ void __launch_bounds__(kThreads)
    CastKernel(typename To::Bits* to, const typename From::Bits* from, size_t count) {
  CastRun<To, From>(to, from, count, size_t{blockIdx.x} * kThreads + threadIdx.x);
}

template <typename To, int kChannels>
__global__ void __launch_bounds__(kThreads)
    NormaliseKernel(typename To::Bits* to, const uint8_t* from, size_t pixels, size_t images,
                    Normalisation normalisation) {
  const size_t thread = size_t{blockIdx.x} * kThreads + threadIdx.x;
  for (size_t image = blockIdx.y; image < images; image += gridDim.y) {
    const size_t offset = image * pixels * kChannels;
    NormaliseRun<To, kChannels>(to + offset, from + offset, pixels, normalisation, thread);
  }
}

// Blocks for so many runs of kPerThread; 0 = more than a grid has.
unsigned Blocks(size_t count) {
  const size_t per_block = kThreads * kPerThread;
  const size_t blocks = count / per_block + (count % per_block != 0 ? 1 : 0);
  return blocks <= kMaxGridX ? static_cast<unsigned>(blocks) : 0;
}

// Enough threads that each copies 16 bytes, or several times where a row is long.
dim3 RowGrid(uint32_t rows, size_t row_bytes) {
  const size_t per_block = kThreads * kVecBytes;
  const size_t blocks = row_bytes / per_block + 1;
  return {rows, static_cast<unsigned>(blocks < kMaxBlocksForRow ? blocks : kMaxBlocksForRow)};
}

// The launch's own answer: cudaGetLastError would also give what an earlier call left behind.
template <typename... Params, typename... Args>
cudaError_t Launch(void (*kernel)(Params...), dim3 grid, cudaStream_t stream, Args... args) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, args...);
}

template <typename To, typename From>
cudaError_t LaunchCast(void* to, const void* from, size_t count, cudaStream_t stream) {
  const unsigned blocks = Blocks(count);
  if (blocks == 0) return cudaErrorInvalidValue;
  return Launch(CastKernel<To, From>, dim3(blocks), stream, static_cast<typename To::Bits*>(to),
                static_cast<const typename From::Bits*>(from), count);
}

template <typename To, int kChannels>
cudaError_t LaunchNormalise(void* to, const uint8_t* from, const ImageBatch& batch,
                            const Normalisation& normalisation, cudaStream_t stream) {
  const unsigned blocks = Blocks(batch.pixels);
  if (blocks == 0) return cudaErrorInvalidValue;
  const size_t images = batch.images < kMaxGridY ? batch.images : kMaxGridY;
  return Launch(NormaliseKernel<To, kChannels>, dim3(blocks, static_cast<unsigned>(images)), stream,
                static_cast<typename To::Bits*>(to), from, batch.pixels, size_t{batch.images},
                normalisation);
}

template <typename To>
cudaError_t NormaliseTo(void* to, const uint8_t* from, const ImageBatch& batch,
                        const Normalisation& normalisation, cudaStream_t stream) {
  switch (batch.channels) {
    case 1:
      return LaunchNormalise<To, 1>(to, from, batch, normalisation, stream);
    case 3:
      return LaunchNormalise<To, 3>(to, from, batch, normalisation, stream);
    case 4:
      return LaunchNormalise<To, 4>(to, from, batch, normalisation, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace

cudaError_t GatherRows(void* to, const void* const* from, uint32_t rows, size_t row_bytes,
                       cudaStream_t stream) {
  if (rows == 0 || row_bytes == 0) return cudaSuccess;
  if (rows > kMaxGridX) return cudaErrorInvalidValue;
  return Launch(GatherKernel, RowGrid(rows, row_bytes), stream, static_cast<uint8_t*>(to), from,
                row_bytes);
}

cudaError_t ScatterRows(void* const* to, const void* from, uint32_t rows, size_t row_bytes,
                        cudaStream_t stream) {
  if (rows == 0 || row_bytes == 0) return cudaSuccess;
  if (rows > kMaxGridX) return cudaErrorInvalidValue;
  return Launch(ScatterKernel, RowGrid(rows, row_bytes), stream, to,
                static_cast<const uint8_t*>(from), row_bytes);
}

cudaError_t Cast(void* to, Element to_type, const void* from, Element from_type, size_t count,
                 cudaStream_t stream) {
  const bool narrows = from_type == Element::kFp32 && to_type != Element::kFp32;
  const bool widens = to_type == Element::kFp32 && from_type != Element::kFp32;
  if (!narrows && !widens) return cudaErrorInvalidValue;
  if (count == 0) return cudaSuccess;
  if (to_type == Element::kFp16) return LaunchCast<Fp16, Fp32>(to, from, count, stream);
  if (to_type == Element::kBf16) return LaunchCast<Bf16, Fp32>(to, from, count, stream);
  if (from_type == Element::kFp16) return LaunchCast<Fp32, Fp16>(to, from, count, stream);
  return LaunchCast<Fp32, Bf16>(to, from, count, stream);
}

cudaError_t NormaliseImages(void* to, Element to_type, const uint8_t* from, const ImageBatch& batch,
                            const Normalisation& normalisation, cudaStream_t stream) {
  if (to_type == Element::kBf16) return cudaErrorInvalidValue;
  if (batch.images == 0 || batch.pixels == 0) return cudaSuccess;
  return to_type == Element::kFp32 ? NormaliseTo<Fp32>(to, from, batch, normalisation, stream)
                                   : NormaliseTo<Fp16>(to, from, batch, normalisation, stream);
}

}  // namespace penstock::gpu
