// TensorRT's runtime as a PlanRuntime: nvinfer1 and nothing else. Compiled with TensorRT's headers,
// never linked with its library.

#pragma once

#include <memory>
#include <string>

#include "backends/tensorrt/plan.h"
#include "base/status.h"

namespace penstock::tensorrt {

// Opens the library and starts its runtime. FAILED_PRECONDITION where it does not open, or is of
// another major than the headers or older: its classes are not what they say. REQUIRES: there is a
// driver with a device (preflight.h): without one the runtime is a pointer to nothing.
// Ownership: the library is never closed.
Result<std::unique_ptr<PlanRuntime>> OpenNvinfer(const std::string& library);

}  // namespace penstock::tensorrt
