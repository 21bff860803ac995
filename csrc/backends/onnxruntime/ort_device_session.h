// OrtSessionOpener: ONNX Runtime's own sessions on a GPU.

#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/backend.h"
#include "backends/onnxruntime/device_session.h"
#include "backends/onnxruntime/gpu_settings.h"
#include "backends/onnxruntime/model_file.h"
#include "backends/onnxruntime/ort_api.h"
#include "backends/onnxruntime/ort_library.h"
#include "backends/onnxruntime/session_profiles.h"
#include "backends/onnxruntime/settings.h"
#include "base/status.h"
#include "gpu/device.h"

namespace penstock::ort {

// By input of the session that has no default: whether the engine reads it in the host's memory, as
// what its CPU kernels take and shapes that its GPU kernels look at.
Result<std::vector<bool>> ReadHostInputs(const OrtLibrary& library, const Session* session,
                                         const std::string& label);

// FAILED_PRECONDITION where the library has not all of the providers: what was asked for, what it
// has, and how to get them; or where it is too old for GPUs.
Status CheckProviders(const OrtLibrary& library, const std::string& label,
                      const GpuSettings& settings);

struct OrtSessionOptions {
  LoadOptions load;
  Settings settings;
  GpuSettings gpu;
  ModelFileFacts facts;
  // Where what TensorRT's provider builds and measures for this model is kept, if it is.
  std::string engine_directory = {};
  size_t memory_limit_bytes = 0;  // of the engine's arena, where the model says none; 0: none
};

// The values that a provider of a session is given, by the engine's names, but for its stream and
// for shapes. Pure.
std::map<std::string, std::string> ProviderValues(const ProviderSettings& provider,
                                                  const OrtSessionOptions& options, int device);

// Threading: thread-compatible.
// Ownership: borrows the library, which is never destroyed, and the device, which outlives it.
class OrtSessionOpener final : public SessionOpener {
 public:
  OrtSessionOpener(const OrtLibrary& library, gpu::Device& device, OrtSessionOptions options)
      : library_(library),
        options_(std::move(options)),
        profiled_(device,
                  {ModelLabel(options_.load), options_.gpu.ranges, options_.engine_directory},
                  [this](int device, gpu::Stream stream, const ProfileOptions* profiles) {
                    return OpenOne(device, stream, profiles);
                  }) {}
  OrtSessionOpener(const OrtSessionOpener&) = delete;
  OrtSessionOpener& operator=(const OrtSessionOpener&) = delete;

  // Errors as MakeSession's and ProfiledSessions'; FAILED_PRECONDITION where a provider's libraries
  // do not open.
  Result<std::unique_ptr<DeviceSession>> Open(int device, gpu::Stream stream) override;

 private:
  // `profiles`: for TensorRT's provider; null: without it, also where it is asked for.
  Status Append(int device, gpu::Stream stream, const ProfileOptions* profiles,
                SessionOptions* to) const;
  Result<std::unique_ptr<DeviceSession>> OpenOne(int device, gpu::Stream stream,
                                                 const ProfileOptions* profiles) const;

  const OrtLibrary& library_;
  const OrtSessionOptions options_;
  ProfiledSessions profiled_;
};

}  // namespace penstock::ort
