#include "backends/onnxruntime/gpu_backend.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "backends/onnxruntime/cuda_libraries.h"
#include "backends/onnxruntime/engine_key.h"
#include "backends/onnxruntime/model_file.h"
#include "backends/onnxruntime/ort_device_session.h"
#include "base/clock.h"
#include "base/strcat.h"
#include "gpu/device.h"
#include "gpu/driver_api.h"

namespace penstock::ort {
namespace {

namespace fs = std::filesystem;

// A directory for the engines of one model file on one kind of device: by itself the engine takes
// those of another model with equal names for its own.
Result<std::string> EngineDirectory(const std::string& cache, const std::string& label,
                                    const std::string& key) {
  const fs::path directory = fs::path(cache) / "onnxruntime" / key;
  std::error_code error;
  fs::create_directories(directory, error);
  if (!error) return directory.string();
  return FailedPrecondition(
      StrCat(label, ": its engines cannot be kept in the engine cache: ", error.message()));
}

}  // namespace

Result<GpuModels*> GpuBackend::Models(const std::string& label) {
  MutexLock lock(mu_);
  if (models_ != nullptr) return models_.get();
  auto api = gpu::OpenDriverApi();
  if (!api.ok()) {
    return Status(api.status().code(),
                  StrCat(label, ": KIND_GPU needs a GPU: ", api.status().message()));
  }
  OpenCudaLibraries(options_.cuda_libraries);
  models_ = std::make_unique<GpuModels>(*std::move(api), Clock::System());
  return models_.get();
}

std::shared_ptr<void> GpuBackend::PinHostMemory(std::span<uint8_t> memory) {
  GpuModels* models = nullptr;
  {
    MutexLock lock(mu_);
    models = models_.get();
  }
  return models == nullptr ? nullptr : models->PinHostMemory(memory);
}

Result<std::unique_ptr<BackendModel>> GpuBackend::Load(const LoadOptions& options,
                                                       const Settings& settings,
                                                       const GpuSettings& gpu) {
  const std::string label = ModelLabel(options);
  PENSTOCK_RETURN_IF_ERROR(CheckProviders(library_, label, gpu));
  if (gpu.needs_cache() && options_.engine_cache.empty()) {
    return FailedPrecondition(StrCat(label, ": ", gpu.keeps_engines ? kKeepEngines : kKeepTimings,
                                     " needs the server's --engine-cache, which is not set"));
  }
  PENSTOCK_ASSIGN_OR_RETURN(const ModelFileFacts facts, InspectModelFile(options));
  PENSTOCK_ASSIGN_OR_RETURN(GpuModels * models, Models(label));
  return models->Load(
      options, gpu,
      [&](const tensorrt::DeviceTable::Found& found,
          size_t lanes) -> Result<std::unique_ptr<SessionOpener>> {
        OrtSessionOptions session{options, settings, gpu, facts};
        if (gpu.needs_cache()) {
          PENSTOCK_ASSIGN_OR_RETURN(
              const std::string key,
              EngineKey(library_.version(), options, facts, gpu, found.device->properties()));
          PENSTOCK_ASSIGN_OR_RETURN(session.engine_directory,
                                    EngineDirectory(options_.engine_cache, label, key));
        }
        size_t free_bytes = 0;
        size_t total_bytes = 0;
        PENSTOCK_RETURN_IF_ERROR(found.device->health().Check(
            found.device->api().MemoryInfo(&free_bytes, &total_bytes), "ask for free memory"));
        session.memory_limit_bytes = ArenaBytes(free_bytes, lanes);
        return std::unique_ptr<SessionOpener>(
            std::make_unique<OrtSessionOpener>(library_, *found.device, std::move(session)));
      });
}

}  // namespace penstock::ort
