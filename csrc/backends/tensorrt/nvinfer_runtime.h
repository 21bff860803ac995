// TensorRT's runtime as a PlanRuntime: nvinfer1 and nothing else. Compiled with TensorRT's headers,
// never linked with its library.

#pragma once

#include <memory>
#include <string>

#include "backends/tensorrt/plan.h"
#include "base/status.h"

namespace penstock::tensorrt {

// Opens the library, starts its runtime and registers the plug-ins that come with it, where they do.
// `place`: what it is among others, for messages (PlaceOf). FAILED_PRECONDITION where it does not
// open, or is of another major than the headers or older: its classes are not what they say; and, with
// the library's first words, where its runtime does not start: CUDA does not, for one.
// RESOURCE_EXHAUSTED where those are about memory.
// Ownership: the library is never closed.
Result<std::unique_ptr<PlanRuntime>> OpenNvinfer(const std::string& library,
                                                 const std::string& place);

}  // namespace penstock::tensorrt
