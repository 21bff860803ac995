#include "backends/worker_tensors.h"

#include <utility>

#include "base/strcat.h"

namespace penstock {
namespace {

std::vector<TensorSpec> ToSpecs(const std::vector<WorkerTensorSpec>& specs) {
  std::vector<TensorSpec> made;
  made.reserve(specs.size());
  for (const WorkerTensorSpec& spec : specs) {
    made.push_back({spec.name, spec.dtype, spec.dims, spec.is_optional});
  }
  return made;
}

std::vector<WorkerTensorSpec> ToWorkerSpecs(const std::vector<TensorSpec>& specs) {
  std::vector<WorkerTensorSpec> made;
  made.reserve(specs.size());
  for (const TensorSpec& spec : specs) {
    made.push_back({spec.name, spec.dtype, spec.dims, spec.is_optional});
  }
  return made;
}

}  // namespace

ModelSignature ToModelSignature(const WorkerSignature& signature) {
  ModelSignature made{ToSpecs(signature.inputs), ToSpecs(signature.outputs)};
  if (signature.max_batch_size >= 0) {
    made.max_batch_size = static_cast<uint32_t>(signature.max_batch_size);
  }
  made.is_decoupled = signature.is_decoupled;
  made.batches_dynamically = signature.batches_dynamically;
  return made;
}

WorkerSignature ToWorkerSignature(const ModelSignature& signature) {
  WorkerSignature made;
  made.is_decoupled = signature.is_decoupled;
  made.batches_dynamically = signature.batches_dynamically;
  if (signature.max_batch_size) {
    made.max_batch_size = static_cast<int32_t>(*signature.max_batch_size);
  }
  made.inputs = ToWorkerSpecs(signature.inputs);
  made.outputs = ToWorkerSpecs(signature.outputs);
  return made;
}

Status TakeOutputs(std::string_view label, const ModelSignature& signature,
                   std::span<const size_t> wanted, WorkerAnswer answer,
                   std::vector<BatchOutput>* outputs) {
  if (answer.code != StatusCode::kOk) return {answer.code, std::move(answer.text)};
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (i >= answer.outputs.size() || answer.outputs[i].index != wanted[i]) {
      return Internal(
          StrCat(label, " gave no output '", signature.outputs[wanted[i]].name, "' in its place"));
    }
    auto& output = answer.outputs[i];
    outputs->push_back({output.index, output.dtype, output.shape, std::move(output.data)});
  }
  return Status::Ok();
}

}  // namespace penstock
