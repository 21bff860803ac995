// WarmUp: a session run at both ends of its inputs' shapes, before it serves.

#pragma once

#include <string>
#include <vector>

#include "backends/onnxruntime/device_session.h"
#include "backends/tensorrt/plan.h"
#include "base/status.h"
#include "gpu/device.h"

namespace penstock::ort {

// Runs the session on zeros, at the greatest shapes and then at the least. What TensorRT's provider
// builds at the first run, and at each that goes beyond the shapes that it has met, it has built then.
// `ranges`: by input of the signature. Nothing is run of a model that lanes refuse (one with BYTES, or
// with an output whose shape does not follow from the inputs'), nor of one that reads an input on the
// host, for whose kernels there zeros may be no numbers to divide by.
// REQUIRES: the device is this thread's, and `stream` the session's.
// Blocking: while engines are built, which may take minutes.
// Cost: device memory for tensors of the greatest shapes, until it returns.
Status WarmUp(const std::string& label, gpu::Device& device, gpu::Stream stream,
              DeviceSession& session, const std::vector<tensorrt::ProfileRange>& ranges);

}  // namespace penstock::ort
