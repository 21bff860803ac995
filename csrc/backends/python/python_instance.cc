#include "backends/python/python_instance.h"

#include <new>
#include <utility>

#include "base/strcat.h"

namespace penstock::python {

// Whatever became of the last batch: once its inputs were released, its memory is free.
void PythonInstance::BeginBatch() {
  if (inputs_held_ == 0) arena_.Reset();
}

Buffer PythonInstance::AllocateInput(size_t size_bytes) {
  if (size_bytes == 0) return {};
  BeginBatch();
  auto data = arena_.Allocate(size_bytes);
  if (!data.ok()) throw std::bad_alloc();
  ++inputs_held_;
  return {data->data(), size_bytes, size_bytes, &ReleaseInput, this};
}

void PythonInstance::ReleaseInput(void* context, void*, size_t) noexcept {
  --static_cast<PythonInstance*>(context)->inputs_held_;
}

void PythonInstance::SetTensors(std::span<const BatchInput> inputs) {
  BeginBatch();
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
  PENSTOCK_ASSIGN_OR_RETURN(auto answers, chosen->worker().Run({tensors_, wanted, {}}, &arena_));
  return TakeOutputs(wanted, std::move(answers[0]), outputs);
}

Status PythonInstance::ExecuteRequests(std::span<const BatchInput> inputs,
                                       std::span<const BatchRequest> requests) {
  SetTensors(inputs);
  SetRequests(requests);
  if (worker_->worker().signature().is_decoupled) return Stream(requests);
  const auto chosen = ChooseWorker();
  PENSTOCK_ASSIGN_OR_RETURN(auto answers, chosen->worker().Run({tensors_, {}, requests_}, &arena_));
  for (size_t i = 0; i < requests.size(); ++i) {
    std::vector<BatchOutput> outputs;
    Status status = TakeOutputs(requests[i].wanted, std::move(answers[i]), &outputs);
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
  return chosen->worker().RunStreams({tensors_, {}, requests_}, &arena_, batch, batch->id());
}

Status PythonInstance::TakeOutputs(std::span<const size_t> wanted, WorkerAnswer answer,
                                   std::vector<BatchOutput>* outputs) const {
  if (answer.code != StatusCode::kOk) return {answer.code, std::move(answer.text)};
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (i >= answer.outputs.size() || answer.outputs[i].index != wanted[i]) {
      return Internal(StrCat(label_, " gave no output '", signature_.outputs[wanted[i]].name,
                             "' in its place"));
    }
    auto& output = answer.outputs[i];
    outputs->push_back({output.index, output.dtype, output.shape, std::move(output.data)});
  }
  return Status::Ok();
}

}  // namespace penstock::python
