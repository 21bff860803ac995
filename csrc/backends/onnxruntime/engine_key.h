// EngineKey: what an engine that TensorRT's provider builds is made of, as the name of a directory.

#pragma once

#include <string>

#include "backends/backend.h"
#include "backends/onnxruntime/gpu_settings.h"
#include "backends/onnxruntime/model_file.h"
#include "base/status.h"
#include "gpu/gpu_api.h"

namespace penstock::ort {

// A digest of the model's file and its external data, the providers' settings, the shapes, the
// engine's version and the kind of device, in hexadecimal digits. INVALID_ARGUMENT where a file
// cannot be read. Blocking: reads the files.
Result<std::string> EngineKey(const std::string& engine_version, const LoadOptions& options,
                              const ModelFileFacts& facts, const GpuSettings& settings,
                              const gpu::DeviceProperties& device);

}  // namespace penstock::ort
