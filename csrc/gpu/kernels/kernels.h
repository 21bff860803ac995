// Kernels: rows gathered and scattered, casts, images made into a network's input.
//
// Each function enqueues on `stream` and answers what the launch did, not what was before it; the work's
// own errors come later, as all of CUDA's do. All pointers are the device's, or pinned and mapped.
// Nothing is allocated, so that all of it can be captured. Sizes of 0 enqueue nothing.

#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "gpu/kernels/row_math.h"

namespace penstock::gpu {

enum class Element { kFp32, kFp16, kBf16 };

// Row i of `to` = what `from[i]` points to. `from` itself lies where the device can read it.
cudaError_t GatherRows(void* to, const void* const* from, uint32_t rows, size_t row_bytes,
                       cudaStream_t stream);
// What `to[i]` points to = row i of `from`.
cudaError_t ScatterRows(void* const* to, const void* from, uint32_t rows, size_t row_bytes,
                        cudaStream_t stream);

// Between kFp32 and one of the others, either way; rounded to nearest, ties to even.
// cudaErrorInvalidValue for any other pair. `to` and `from` do not overlap.
cudaError_t Cast(void* to, Element to_type, const void* from, Element from_type, size_t count,
                 cudaStream_t stream);

// Images of uint8 [images, pixels, channels] to [images, channels, pixels] of kFp32 or kFp16, with
// y = x * scale + bias in float (one rounding more or less, as the compiler fuses). 1, 3 or 4
// channels, else cudaErrorInvalidValue.
struct ImageBatch {
  uint32_t images = 0;
  size_t pixels = 0;  // height * width
  int channels = 3;
};
cudaError_t NormaliseImages(void* to, Element to_type, const uint8_t* from, const ImageBatch& batch,
                            const Normalisation& normalisation, cudaStream_t stream);

}  // namespace penstock::gpu
