#include "backends/python/python_instance.h"

#include <utility>

#include "backends/worker_tensors.h"

namespace penstock::python {

void PythonInstance::SetTensors(std::span<const BatchInput> inputs) {
  inputs_.Begin();
  tensors_.clear();
  for (const BatchInput& input : inputs) {
    tensors_.push_back({static_cast<uint32_t>(input.index), input.tensor});
  }
}

// While its worker is away an instance would be the quickest, and take every batch to fail it.
std::shared_ptr<LinkedWorker> PythonInstance::ChooseWorker() const {
  if (worker_->worker().is_ready()) return worker_;
  auto other = roster_->FindReady();
  return other == nullptr ? worker_ : other;
}

Status PythonInstance::Execute(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                               std::vector<BatchOutput>* outputs) {
  SetTensors(inputs);
  const auto chosen = ChooseWorker();
  PENSTOCK_ASSIGN_OR_RETURN(auto answers,
                            chosen->worker().Run({tensors_, wanted, {}}, inputs_.arena()));
  return TakeOutputs(label_, signature_, wanted, std::move(answers[0]), outputs);
}

Status PythonInstance::ExecuteRequests(std::span<const BatchInput> inputs,
                                       std::span<const BatchRequest> requests) {
  SetTensors(inputs);
  SetRequests(requests);
  if (worker_->worker().signature().is_decoupled) return Stream(requests);
  const auto chosen = ChooseWorker();
  PENSTOCK_ASSIGN_OR_RETURN(auto answers,
                            chosen->worker().Run({tensors_, {}, requests_}, inputs_.arena()));
  for (size_t i = 0; i < requests.size(); ++i) {
    std::vector<BatchOutput> outputs;
    Status status =
        TakeOutputs(label_, signature_, requests[i].wanted, std::move(answers[i]), &outputs);
    if (status.ok()) status = requests[i].responses->Send(std::move(outputs));
    requests[i].responses->Finish(status);
  }
  return Status::Ok();
}

void PythonInstance::SetRequests(std::span<const BatchRequest> requests) {
  requests_.clear();
  for (const BatchRequest& request : requests) {
    requests_.push_back({.rows = request.rows,
                         .timeout_us = request.timeout_us,
                         .id = request.id,
                         .parameters = request.parameters,
                         .wanted = request.wanted});
  }
}

Status PythonInstance::Stream(std::span<const BatchRequest> requests) {
  const auto chosen = ChooseWorker();
  const auto batch = std::make_shared<StreamBatch>(label_, chosen->link(), requests);
  for (uint32_t i = 0; i < requests_.size(); ++i) requests_[i].room = batch->FirstRoom(i);
  return chosen->worker().RunStreams({tensors_, {}, requests_}, inputs_.arena(), batch,
                                     batch->id());
}

}  // namespace penstock::python
