#include "engine/batch_io.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/strcat.h"
#include "engine/bind_request.h"

namespace penstock {
namespace {

// It holds the region.
DevicePart PartOf(const SharedTensor& shared) {
  return {{shared.region, shared.region->exported()}, shared.offset, shared.size_bytes};
}

// Makes `before` longer by `part` where that follows it in the same memory: of the input's slab, or of
// one client.
bool Join(const InputPart& part, InputPart* before) {
  if (part.device.memory != before->device.memory) return false;
  if (part.device.memory == nullptr) {
    if (before->host.data() + before->host.size() != part.host.data()) return false;
    before->host = {before->host.data(), before->host.size() + part.host.size()};
    return true;
  }
  if (before->device.offset + before->device.size_bytes != part.device.offset) return false;
  before->device.size_bytes += part.device.size_bytes;
  return true;
}

bool IsAligned(const uint8_t* data, DataType dtype) {
  const size_t alignment = std::max<size_t>(DataTypeSize(dtype), 1);
  return reinterpret_cast<uintptr_t>(data) % alignment == 0;
}

}  // namespace

void BatchIo::Gather(const Batch& batch, std::span<Status> outcomes) {
  for (const RequestRef& ref : batch.requests) {
    if (AsInfer(ref).uses_shared_memory()) FindDevices(&AsInfer(ref));
  }
  for (size_t i = 0; i < spec_.inputs.size(); ++i) PlanInput(batch, i);
  for (size_t i = 0; i < batch.requests.size(); ++i) {
    const InferRequest& request = AsInfer(batch.requests[i]);
    outcomes[i] = GatherRequest(request);
    if (outcomes[i].ok()) rows_ += request.rows;
  }
  FinishInputs();
  ChooseOutputs(batch, outcomes);
  if (has_devices_) AddOutputParts(batch, outcomes);
}

bool BatchIo::IsOnDevice(const SharedTensor& shared) {
  const ExportedMemory* const memory =
      shared.region == nullptr ? nullptr : shared.region->exported();
  if (memory == nullptr || !instance_.Reaches(*memory)) return false;
  has_devices_ = true;
  return true;
}

// Decides for each of the request's tensors in shared memory who copies it.
void BatchIo::FindDevices(InferRequest* request) {
  for (size_t i = 0; i < request->shared_inputs.size(); ++i) {
    const DataType dtype = spec_.inputs[i].dtype;
    const bool is_checked = dtype == DataType::kBytes || dtype == DataType::kBool;
    SharedTensor& shared = request->shared_inputs[i];
    shared.is_on_device = !is_checked && IsOnDevice(shared);
    if (!shared.is_on_device) continue;
    has_input_parts_.resize(spec_.inputs.size());
    has_input_parts_[i] = true;
  }
  for (size_t i = 0; i < request->shared_outputs.size(); ++i) {
    const bool is_text = spec_.outputs[request->wanted[i].index].dtype == DataType::kBytes;
    SharedTensor& shared = request->shared_outputs[i];
    shared.is_on_device = !is_text && !request->is_cancelled() && IsOnDevice(shared);
  }
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
  for (const RequestRef& ref : batch.requests) size_bytes += AsInfer(ref).HostBytes(index);
  const bool has_parts = !has_input_parts_.empty() && has_input_parts_[index];
  fills_.push_back({index, inputs_.size() - 1, slabs_.size(), 0, has_parts});
  slabs_.push_back(has_parts && size_bytes == 0 ? Buffer() : instance_.AllocateInput(size_bytes));
}

// Appends the request's rows to every slab, or to none of them.
Status BatchIo::GatherRequest(const InferRequest& request) {
  const size_t parts = input_parts_.size();
  for (size_t i = 0; i < fills_.size(); ++i) {
    Fill& fill = fills_[i];
    const size_t size_bytes = request.HostBytes(fill.spec_index);
    const auto out = slabs_[fill.slab_index].span().subspan(fill.used_bytes, size_bytes);
    const SharedTensor* const shared = request.SharedInput(fill.spec_index);
    if (shared != nullptr && !shared->is_on_device) {
      Status status = GatherShared(request, fill.spec_index, out);
      if (!status.ok()) {
        LeaveOut(request, i, parts);
        return status;
      }
    } else if (size_bytes > 0) {
      std::memcpy(out.data(), request.inputs[fill.spec_index]->tensor.data.data(), size_bytes);
    }
    fill.used_bytes += size_bytes;
    if (fill.has_parts) AddPart(request, fill, out);
  }
  return Status::Ok();
}

// Takes back what the first `fills` got of the request, and the parts behind the first `parts`.
void BatchIo::LeaveOut(const InferRequest& request, size_t fills, size_t parts) {
  for (Fill& done : std::span(fills_).first(fills)) {
    done.used_bytes -= request.HostBytes(done.spec_index);
  }
  input_parts_.resize(parts);
}

void BatchIo::AddPart(const InferRequest& request, const Fill& fill,
                      std::span<const uint8_t> host) {
  InputPart& part = input_parts_.emplace_back();
  part.input = fill.input_index;
  const SharedTensor* const shared = request.SharedInput(fill.spec_index);
  if (shared != nullptr && shared->is_on_device) {
    part.device = PartOf(*shared);
  } else {
    part.host = host;
  }
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

// Parts of one input that go on where the one before ended are one: fewer copies, fewer words.
void BatchIo::JoinParts() {
  size_t kept = 0;
  for (InputPart& part : input_parts_) {
    size_t before = kept;
    while (before > 0 && input_parts_[before - 1].input != part.input) --before;
    if (before > 0 && Join(part, &input_parts_[before - 1])) continue;
    if (InputPart& place = input_parts_[kept++]; &place != &part) place = std::move(part);
  }
  input_parts_.resize(kept);
}

void BatchIo::FinishInputs() {
  if (has_devices_) JoinParts();
  for (const Fill& fill : fills_) {
    if (fill.has_parts) {
      inputs_[fill.input_index].tensor.data = {};
      continue;
    }
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

void BatchIo::AddOutputParts(const Batch& batch, std::span<const Status> outcomes) {
  is_read_.assign(spec_.outputs.size(), false);
  uint32_t first_row = 0;
  for (size_t i = 0; i < batch.requests.size(); ++i) {
    if (!outcomes[i].ok()) continue;
    const InferRequest& request = AsInfer(batch.requests[i]);
    for (size_t k = 0; k < request.wanted.size(); ++k) {
      const uint32_t index = request.wanted[k].index;
      const SharedTensor* const shared = request.SharedOutput(k);
      if (shared == nullptr || !shared->is_on_device) {
        is_read_[index] = true;
        continue;
      }
      const auto at = std::find(wanted_spec_.begin(), wanted_spec_.end(), index);
      output_parts_.push_back({.wanted = static_cast<size_t>(at - wanted_spec_.begin()),
                               .first_row = first_row,
                               .rows = request.rows,
                               .device = PartOf(*shared)});
    }
    first_row += request.rows;
  }
  for (OutputPart& part : output_parts_) part.is_read_on_host = is_read_[wanted_spec_[part.wanted]];
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
    cuts_[spec_index].has_no_data = has_devices_ && !is_read_[spec_index];
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
  has_devices_ = false;
  has_input_parts_.clear();
  input_parts_.clear();
  output_parts_.clear();
}

}  // namespace penstock
