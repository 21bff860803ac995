// PythonInstance: runs batches on its worker, gathered straight into the slab that the worker sees.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "backends/python/python_model.h"
#include "backends/python/stream_batch.h"
#include "worker/slab_inputs.h"
#include "worker/worker.h"

namespace penstock::python {

// Threading: as BackendInstance.
// Ownership: owns its worker. Memory of AllocateInput is borrowed from it until released.
class PythonInstance : public BackendInstance {
 public:
  PythonInstance(std::string label, const ModelSignature& signature,
                 std::shared_ptr<LinkedWorker> worker, std::shared_ptr<WorkerRoster> roster)
      : label_(std::move(label)),
        signature_(signature),
        worker_(std::move(worker)),
        roster_(std::move(roster)) {}

  bool is_available() const override { return worker_->worker().is_ready(); }
  uint64_t restarts() const override { return worker_->worker().restarts(); }
  Buffer AllocateInput(size_t size_bytes) override { return inputs_.Allocate(size_bytes); }
  Status Execute(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                 std::vector<BatchOutput>* outputs) override;
  bool answers_requests() const override { return worker_->worker().signature().answers_requests; }
  Status ExecuteRequests(std::span<const BatchInput> inputs,
                         std::span<const BatchRequest> requests) override;

 private:
  void SetTensors(std::span<const BatchInput> inputs);
  void SetRequests(std::span<const BatchRequest> requests);
  std::shared_ptr<LinkedWorker> ChooseWorker() const;
  Status Stream(std::span<const BatchRequest> requests);

  // Constant after construction.
  const std::string label_;
  const ModelSignature& signature_;
  const std::shared_ptr<LinkedWorker> worker_;
  const std::shared_ptr<WorkerRoster> roster_;

  // Of the current batch.
  SlabInputs inputs_;
  std::vector<WorkerTensor> tensors_;
  std::vector<WorkerRequest> requests_;
};

}  // namespace penstock::python
