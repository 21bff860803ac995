#include "backends/device_worker/device_workers.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <utility>

#include "backends/device_worker/device_name.h"
#include "backends/device_worker/load_document.h"
#include "base/strcat.h"
#include "worker/worker_limits.h"

namespace penstock {
namespace {

constexpr const char* kProgram = "/penstock_device_worker";

// What the worker of a device is told: it sees that device alone.
DeviceLoad LoadOnOne(const std::string& backend, const BackendOptions& backend_options,
                     const LoadOptions& options) {
  DeviceLoad load{backend, backend_options, options};
  load.options.devices.clear();
  load.options.parameters.erase(kExecutionLimit);
  load.options.parameters.erase(kLoadLimit);
  load.options.parameters.insert_or_assign("device", std::string("0"));
  return load;
}

}  // namespace

Result<std::shared_ptr<DeviceWorker>> DeviceWorkers::Find(const std::string& device) {
  // NOLINTNEXTLINE(concurrency-mt-unsafe): nothing of this process changes its environment
  PENSTOCK_ASSIGN_OR_RETURN(const SeenDevice seen,
                            FindDevice(device, std::getenv("CUDA_VISIBLE_DEVICES")));
  MutexLock lock(mu_);
  std::shared_ptr<DeviceWorker>& worker = workers_[seen.visible];
  if (worker != nullptr) return worker;
  const auto is_there = [](const std::string& directory) {
    return access((directory + kProgram).c_str(), X_OK) == 0;
  };
  const auto found = std::find_if(directories_.begin(), directories_.end(), is_there);
  if (found == directories_.end()) {
    return FailedPrecondition(
        "models on GPUs need penstock_device_worker, which is in none of the "
        "backend directories");
  }
  DeviceWorkerOptions options;
  options.device = DeviceLabel(device);
  options.number = seen.number;
  options.launch.arguments = {*found + kProgram};
  options.launch.arguments.insert(options.launch.arguments.end(), directories_.begin(),
                                  directories_.end());
  options.launch.environment = {StrCat("CUDA_VISIBLE_DEVICES=", seen.visible)};
  options.launch.end_signal = SIGKILL;
  return worker = std::make_shared<DeviceWorker>(std::move(options));
}

Result<std::unique_ptr<DeviceModel>> DeviceWorkers::Load(const std::string& backend,
                                                         const BackendOptions& backend_options,
                                                         const LoadOptions& options) {
  const std::string label = StrCat("model '", options.model_name, "' version ", options.version);
  const auto with_label = [&label](const Status& status) {
    return Status(status.code(), StrCat(label, ": ", status.message()));
  };
  WorkerLimits limits;
  const Status read = ReadWorkerLimits(options.parameters, &limits);
  if (!read.ok()) return with_label(read);
  std::vector<std::shared_ptr<DeviceWorker>> workers;
  for (const std::string& device : options.devices) {
    auto worker = Find(device);
    if (!worker.ok()) return with_label(worker.status());
    if (std::find(workers.begin(), workers.end(), *worker) != workers.end()) {
      return with_label(InvalidArgument(StrCat("device '", device, "' is named twice")));
    }
    workers.push_back(*std::move(worker));
  }
  return DeviceModel::Load(
      label, workers, EncodeDeviceLoad(LoadOnOne(backend, backend_options, options)),
      {Nanoseconds(limits.load_limit_s), Nanoseconds(limits.execution_limit_s)});
}

}  // namespace penstock
