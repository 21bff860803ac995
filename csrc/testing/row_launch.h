// RowWork's kernel on a real GPU.

#pragma once

#include "testing/row_kernel.h"

namespace penstock {

// Enqueues it on a stream of CUDA's; null, or the name of the launch's error. Nothing is allocated, so that it
// can be captured. REQUIRES: this thread has a device.
const char* LaunchRowWork(const RowWork& work, void* stream);

}  // namespace penstock
