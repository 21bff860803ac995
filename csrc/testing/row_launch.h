// RowWork's kernel on a real GPU.

#pragma once

#include <cuda_runtime_api.h>

#include "testing/row_kernel.h"

namespace penstock {

// Enqueues it and answers what the launch did. Nothing is allocated, so that it can be captured.
cudaError_t LaunchRowWork(const RowWork& work, cudaStream_t stream);

}  // namespace penstock
