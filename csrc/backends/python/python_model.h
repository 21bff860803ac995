// PythonModel: a model.py, imported by a worker that waits to become its first instance.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "backends/python/settings.h"
#include "backends/python/stream_batch.h"
#include "base/mutex.h"
#include "worker/worker.h"

namespace penstock::python {

// The workers of a model's instances, so that one may run a batch for another whose own is away.
// Threading: thread-safe. Ownership: shared by the model and its instances; owns no worker.
class WorkerRoster {
 public:
  void Add(const std::shared_ptr<LinkedWorker>& worker);
  // A worker that is ready; null where none is.
  std::shared_ptr<LinkedWorker> FindReady() const;

 private:
  mutable Mutex mu_;
  // Guarded by mu_.
  std::vector<std::weak_ptr<LinkedWorker>> workers_ GUARDED_BY(mu_);
};

// Threading: thread-safe. Ownership: owns the worker that no instance has taken yet.
class PythonModel : public BackendModel {
 public:
  static Result<std::unique_ptr<BackendModel>> Load(const BackendSettings& backend,
                                                    const LoadOptions& options);

  const ModelSignature& signature() const override { return signature_; }
  // Its code chooses the device.
  std::string runs_on() const override { return "Python worker"; }
  Result<std::unique_ptr<BackendInstance>> CreateInstance(const InstanceOptions& options) override;

  const std::string& label() const { return worker_options_.label; }

 private:
  PythonModel(WorkerOptions worker_options, std::string directory)
      : worker_options_(std::move(worker_options)), directory_(std::move(directory)) {}

  void Keep(std::unique_ptr<Worker> worker) EXCLUDES(mu_);
  Result<std::shared_ptr<LinkedWorker>> TakeWorker(const std::string& name) EXCLUDES(mu_);

  // Constant after Load.
  const WorkerOptions worker_options_;
  const std::string directory_;
  ModelSignature signature_;
  WorkerSignature described_;  // what it was made of
  const std::shared_ptr<WorkerRoster> roster_ = std::make_shared<WorkerRoster>();

  Mutex mu_;
  // Guarded by mu_.
  std::unique_ptr<Worker> spare_ GUARDED_BY(mu_);
};

}  // namespace penstock::python
