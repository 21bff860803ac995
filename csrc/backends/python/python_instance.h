// PythonInstance: runs batches on its worker, gathered straight into the slab that the worker sees.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "backends/python/python_model.h"
#include "backends/python/stream_batch.h"
#include "worker/slab.h"
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
  Buffer AllocateInput(size_t size_bytes) override;
  Status Execute(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                 std::vector<BatchOutput>* outputs) override;
  bool answers_requests() const override { return worker_->worker().signature().answers_requests; }
  Status ExecuteRequests(std::span<const BatchInput> inputs,
                         std::span<const BatchRequest> requests) override;

 private:
  static void ReleaseInput(void* context, void* data, size_t capacity_bytes) noexcept;
  void BeginBatch();
  void SetTensors(std::span<const BatchInput> inputs);
  void SetRequests(std::span<const BatchRequest> requests);
  std::shared_ptr<LinkedWorker> ChooseWorker() const;
  Status Stream(std::span<const BatchRequest> requests);
  // In the order that they are wanted in, which is the one that a worker gives them in.
  Status TakeOutputs(std::span<const size_t> wanted, WorkerAnswer answer,
                     std::vector<BatchOutput>* outputs) const;

  // Constant after construction.
  const std::string label_;
  const ModelSignature& signature_;
  const std::shared_ptr<LinkedWorker> worker_;
  const std::shared_ptr<WorkerRoster> roster_;

  // Of the current batch.
  SlabArena arena_;
  size_t inputs_held_ = 0;  // of AllocateInput, not released yet
  std::vector<WorkerTensor> tensors_;
  std::vector<WorkerRequest> requests_;
};

}  // namespace penstock::python
