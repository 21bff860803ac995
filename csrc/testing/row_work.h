// RowWork as work of a fake GPU.

#pragma once

#include <functional>

#include "base/status.h"
#include "testing/fake_gpu.h"
#include "testing/fake_stream.h"
#include "testing/row_kernel.h"

namespace penstock {

FakeWork MakeRowWork(const RowWork& work);

// Enqueues the kernel on a stream: of a fake GPU, or a real one's (row_device.h).
using RowLaunch = std::function<Status(gpu::Stream stream, const RowWork& work)>;

// Borrows the GPU.
RowLaunch LaunchOn(FakeGpu& gpu);

}  // namespace penstock
