#include "backends/openvino/openvino_instance.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <openvino/runtime/tensor.hpp>

#include "backends/openvino/engine_error.h"
#include "backends/openvino/string_tensor.h"
#include "base/strcat.h"
#include "memory/host_pool.h"

namespace penstock::openvino {
namespace {

// Where tensors of no bytes point: the engine wants an address all the same.
alignas(HostPool::kAlignment) std::array<uint8_t, HostPool::kAlignment> g_empty;

// The rows of each input; 0 where they differ, as they may in a model that is not batched.
size_t CommonRows(std::span<const BatchInput> inputs) {
  const int64_t rows = inputs.front().tensor.shape[0];
  for (const BatchInput& input : inputs) {
    if (input.tensor.shape[0] != rows) return 0;
  }
  return static_cast<size_t>(rows);
}

}  // namespace

Status OpenVinoInstance::Execute(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                                 std::vector<BatchOutput>* outputs) {
  return GuardStatus(StrCat(model_.label(), " failed to execute"),
                     [&] { return Run(inputs, wanted, outputs); });
}

Status OpenVinoInstance::Run(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                             std::vector<BatchOutput>* outputs) {
  CheckShapes(inputs);
  const size_t padded_rows = padded_ ? CommonRows(inputs) : 0;
  if (padded_rows != 0) {
    padded_->SetInputs(inputs, model_.graph().input_types, padded_rows, &request_);
  } else {
    if (padded_) padded_->Forget();
    for (const BatchInput& input : inputs) PENSTOCK_RETURN_IF_ERROR(SetInput(input));
  }
  if (model_.infers_on_caller()) {
    request_.infer();
  } else {
    // infer() would swallow what a node throws, and the outputs be those of the batch before, which
    // are another client's.
    request_.start_async();
    request_.wait();
  }
  for (const size_t index : wanted) {
    PENSTOCK_ASSIGN_OR_RETURN(BatchOutput output, CopyOutput(index, padded_rows));
    outputs->push_back(std::move(output));
  }
  return Status::Ok();
}

// Throws where they do not fit. What this instance has met before it finds without a lock.
void OpenVinoInstance::CheckShapes(std::span<const BatchInput> inputs) {
  if (!model_.shape_check().is_needed()) return;
  key_.clear();
  for (const BatchInput& input : inputs) {
    key_.push_back(static_cast<int64_t>(input.tensor.shape.rank()));
    key_.insert(key_.end(), input.tensor.shape.begin(), input.tensor.shape.end());
  }
  if (checked_.count(key_) != 0) return;
  model_.shape_check().Check(inputs, key_);
  if (checked_.size() >= ShapeCheck::kMaxKnown) checked_.clear();
  checked_.insert(key_);
}

Status OpenVinoInstance::SetInput(const BatchInput& input) {
  const ov::element::Type& type = model_.graph().input_types[input.index];
  const TensorView& tensor = input.tensor;
  if (type == ov::element::string) {
    Result<ov::Tensor> strings = MakeStringTensor(tensor);
    if (!strings.ok()) {
      return Status(strings.status().code(),
                    StrCat(model_.label(), ": ", strings.status().message()));
    }
    request_.set_input_tensor(input.index, *strings);
    return Status::Ok();
  }
  // The engine only reads inputs, whatever its signature says.
  auto* data = const_cast<uint8_t*>(tensor.data.empty() ? g_empty.data() : tensor.data.data());
  const ov::Shape shape(tensor.shape.begin(), tensor.shape.end());
  request_.set_input_tensor(input.index, ov::Tensor(type, shape, data));
  return Status::Ok();
}

Result<BatchOutput> OpenVinoInstance::CopyOutput(size_t index, size_t padded_rows) {
  const TensorSpec& spec = model_.signature().outputs[index];
  const ov::Tensor tensor = request_.get_output_tensor(index);
  ov::Shape dims = tensor.get_shape();
  if (padded_rows != 0) dims[0] = padded_rows;
  if (dims.size() > kMaxRank) {
    return Internal(StrCat(model_.label(), ": output '", spec.name, "' has ", dims.size(),
                           " dimensions, at most ", kMaxRank, " are supported"));
  }
  BatchOutput output;
  output.index = index;
  output.dtype = spec.dtype;
  for (const size_t dim : dims) output.shape.Append(static_cast<int64_t>(dim));
  if (spec.dtype == DataType::kBytes) {
    PENSTOCK_ASSIGN_OR_RETURN(output.data, EncodeStringTensor(tensor));
    return output;
  }
  const size_t size_bytes = ov::shape_size(dims) * tensor.get_element_type().size();
  output.data = HostPool::Shared().Allocate(size_bytes);
  if (size_bytes != 0) std::memcpy(output.data.data(), tensor.data(), size_bytes);
  return output;
}

}  // namespace penstock::openvino
