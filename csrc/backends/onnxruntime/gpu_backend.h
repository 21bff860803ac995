// GpuBackend: models of ONNX Runtime's on GPUs: what they need of this machine, and their loads.

#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "backends/onnxruntime/gpu_models.h"
#include "backends/onnxruntime/gpu_settings.h"
#include "backends/onnxruntime/ort_library.h"
#include "backends/onnxruntime/settings.h"
#include "base/mutex.h"
#include "base/status.h"

namespace penstock::ort {

struct GpuOptions {
  std::string engine_cache;                 // where TensorRT's engines are kept; empty: nowhere
  std::vector<std::string> cuda_libraries;  // directories of CUDA's libraries, of pip's packages
};

// Threading: thread-safe.
// Ownership: borrows the library, which is never destroyed. Outlives its models.
class GpuBackend {
 public:
  GpuBackend(const OrtLibrary& library, GpuOptions options)
      : library_(library), options_(std::move(options)) {}

  // FAILED_PRECONDITION with the one thing that is missing: the library's provider, a provider's own
  // libraries; UNAVAILABLE without a driver or a device, which another process may find. Nothing of CUDA is touched before the first load.
  // Blocking: as OrtModel::Load; the first time while the driver starts.
  Result<std::unique_ptr<BackendModel>> Load(const LoadOptions& options, const Settings& settings,
                                             const GpuSettings& gpu) EXCLUDES(mu_);
  // Null before a model has been loaded, too: see DeviceTable.
  std::shared_ptr<void> PinHostMemory(std::span<uint8_t> memory) EXCLUDES(mu_);

 private:
  Result<GpuModels*> Models(const std::string& label) EXCLUDES(mu_);

  const OrtLibrary& library_;
  const GpuOptions options_;

  Mutex mu_;
  // Guarded by mu_. Made at the first load that finds a driver.
  std::unique_ptr<GpuModels> models_ GUARDED_BY(mu_);
};

}  // namespace penstock::ort
