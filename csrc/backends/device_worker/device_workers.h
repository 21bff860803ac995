// DeviceWorkers: the devices that models of this process run on, each with its worker.

#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "backends/device_worker/device_model.h"
#include "backends/device_worker/device_worker.h"
#include "base/mutex.h"
#include "base/status.h"

namespace penstock {

// Threading: thread-safe.
// Ownership: shares the workers with the models that they run.
class DeviceWorkers {
 public:
  // The program `penstock_device_worker`, and plug-ins for it, are in one of `directories`.
  explicit DeviceWorkers(std::vector<std::string> directories)
      : directories_(std::move(directories)) {}

  // Loads a model in the workers of `options.devices`, by `backend` with those options. Parameters
  // `load_limit_s` and `execution_limit_s` (600 by default; 0 = for ever) are taken out.
  // INVALID_ARGUMENT or NOT_FOUND for a device, a parameter; FAILED_PRECONDITION where there is no
  // program; else as DeviceWorker::Add.
  Result<std::unique_ptr<DeviceModel>> Load(const std::string& backend,
                                            const BackendOptions& backend_options,
                                            const LoadOptions& options) EXCLUDES(mu_);

 private:
  Result<std::shared_ptr<DeviceWorker>> Find(const std::string& device) EXCLUDES(mu_);

  const std::vector<std::string> directories_;

  Mutex mu_;
  // Guarded by mu_. By what CUDA_VISIBLE_DEVICES is for it.
  std::map<std::string, std::shared_ptr<DeviceWorker>> workers_ GUARDED_BY(mu_);
};

}  // namespace penstock
