#include "engine/batch_io.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/strcat.h"
#include "engine/bind_request.h"

namespace penstock {
namespace {

bool IsAligned(const uint8_t* data, DataType dtype) {
  const size_t alignment = std::max<size_t>(DataTypeSize(dtype), 1);
  return reinterpret_cast<uintptr_t>(data) % alignment == 0;
}

}  // namespace

void BatchIo::Gather(const Batch& batch, std::span<Status> outcomes) {
  for (size_t i = 0; i < spec_.inputs.size(); ++i) PlanInput(batch, i);
  for (size_t i = 0; i < batch.requests.size(); ++i) {
    const InferRequest& request = AsInfer(batch.requests[i]);
    outcomes[i] = GatherRequest(request);
    if (outcomes[i].ok()) rows_ += request.rows;
  }
  FinishInputs();
  ChooseOutputs(batch, outcomes);
}

// Makes room for all requests' rows of an input, or hands over those of a lone one.
void BatchIo::PlanInput(const Batch& batch, size_t index) {
  // Every request of a batch has the same inputs: the batch key says so.
  const InferRequest& request = AsInfer(batch.requests[0]);
  const InferInputView* first = request.inputs[index];
  if (first == nullptr) return;
  const InputSpec& spec = spec_.inputs[index];
  const auto dims = first->tensor.shape.dims().subspan(spec_.has_batch_dimension() ? 1 : 0);
  const Shape shape = spec.reshape ? Reshaped(spec.dims, dims, *spec.reshape) : Shape(dims);
  inputs_.push_back({spec.backend_index, {spec.name, spec.dtype, shape, first->tensor.data}});
  if (batch.requests.size() == 1 && request.SharedInput(index) == nullptr &&
      IsAligned(first->tensor.data.data(), spec.dtype)) {
    return;
  }
  size_t size_bytes = 0;
  for (const RequestRef& ref : batch.requests) size_bytes += AsInfer(ref).InputBytes(index);
  fills_.push_back({index, inputs_.size() - 1, slabs_.size(), 0});
  slabs_.push_back(instance_.AllocateInput(size_bytes));
}

// Appends the request's rows to every slab, or to none of them.
Status BatchIo::GatherRequest(const InferRequest& request) {
  for (size_t i = 0; i < fills_.size(); ++i) {
    Fill& fill = fills_[i];
    const size_t size_bytes = request.InputBytes(fill.spec_index);
    const auto out = slabs_[fill.slab_index].span().subspan(fill.used_bytes, size_bytes);
    if (request.SharedInput(fill.spec_index) != nullptr) {
      Status status = GatherShared(request, fill.spec_index, out);
      if (!status.ok()) {
        for (Fill& done : std::span(fills_).first(i)) {
          done.used_bytes -= request.InputBytes(done.spec_index);
        }
        return status;
      }
    } else if (size_bytes > 0) {
      std::memcpy(out.data(), request.inputs[fill.spec_index]->tensor.data.data(), size_bytes);
    }
    fill.used_bytes += size_bytes;
  }
  return Status::Ok();
}

// Contents are checked in our copy: the client may be writing into its own.
Status BatchIo::GatherShared(const InferRequest& request, size_t index,
                             std::span<uint8_t> out) const {
  const SharedTensor& shared = *request.SharedInput(index);
  TensorView tensor = request.inputs[index]->tensor;
  const Status status = shared.region->Read(shared.offset, out);
  if (!status.ok()) {
    return {status.code(), StrCat("input '", tensor.name, "' for model '", spec_.model_name,
                                  "': ", status.message())};
  }
  tensor.data = out;
  return CheckContents(spec_, tensor, *tensor.shape.NumElements());
}

void BatchIo::FinishInputs() {
  for (const Fill& fill : fills_) {
    inputs_[fill.input_index].tensor.data =
        std::as_const(slabs_[fill.slab_index]).span().first(fill.used_bytes);
  }
  if (!spec_.has_batch_dimension()) return;
  for (BatchInput& input : inputs_) input.tensor.shape = input.tensor.shape.WithFirst(rows_);
}

// The outputs that any request of the batch wants.
void BatchIo::ChooseOutputs(const Batch& batch, std::span<const Status> outcomes) {
  is_wanted_.assign(spec_.outputs.size(), false);
  for (size_t i = 0; i < batch.requests.size(); ++i) {
    if (!outcomes[i].ok()) continue;
    for (const WantedOutput& wanted : AsInfer(batch.requests[i]).wanted) {
      is_wanted_[wanted.index] = true;
    }
  }
  for (size_t i = 0; i < spec_.outputs.size(); ++i) {
    if (!is_wanted_[i]) continue;
    wanted_.push_back(spec_.outputs[i].backend_index);
    wanted_spec_.push_back(i);
  }
}

Status BatchIo::Scatter(const Batch& batch, const std::shared_ptr<const BatchOutputs>& outputs,
                        std::span<Status> outcomes) {
  if (outputs->tensors.size() != wanted_.size()) {
    return Internal(StrCat(spec_.DisplayName(), " gave ", outputs->tensors.size(),
                           " outputs, expected ", wanted_.size()));
  }
  cuts_.resize(spec_.outputs.size());
  for (size_t i = 0; i < wanted_.size(); ++i) {
    const size_t spec_index = wanted_spec_[i];
    if (outputs->tensors[i].index != wanted_[i]) {
      return Internal(StrCat(spec_.DisplayName(), " gave another output where '",
                             spec_.outputs[spec_index].name, "' was expected"));
    }
    PENSTOCK_RETURN_IF_ERROR(CutOutput(spec_, spec_.outputs[spec_index], outputs->tensors[i], rows_,
                                       &cuts_[spec_index]));
  }
  uint32_t first_row = 0;
  for (size_t i = 0; i < batch.requests.size(); ++i) {
    if (!outcomes[i].ok()) continue;
    InferRequest& request = AsInfer(batch.requests[i]);
    request.batch_outputs = outputs;
    outcomes[i] = FillResponse(first_row, &request);
    first_row += request.rows;
  }
  return Status::Ok();
}

Status BatchIo::FillResponse(uint32_t first_row, InferRequest* request) const {
  for (size_t i = 0; i < request->wanted.size(); ++i) {
    PENSTOCK_RETURN_IF_ERROR(AppendOutput(spec_, cuts_[request->wanted[i].index], first_row,
                                          *request, i, {request->outputs, request->owned_outputs}));
  }
  return Status::Ok();
}

void BatchIo::Clear() {
  inputs_.clear();
  slabs_.clear();
  fills_.clear();
  rows_ = 0;
  wanted_.clear();
  wanted_spec_.clear();
}

}  // namespace penstock
