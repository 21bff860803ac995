#include "backends/onnxruntime/ort_instance.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "backends/onnxruntime/signature.h"
#include "backends/onnxruntime/string_tensor.h"
#include "base/log.h"
#include "base/strcat.h"
#include "memory/host_pool.h"

namespace penstock::ort {
namespace {

// Where tensors of no bytes point: the engine wants an address all the same.
alignas(HostPool::kAlignment) std::array<uint8_t, HostPool::kAlignment> g_empty;

// An output in the engine's memory, and the session whose allocator it came from, which goes last.
struct HeldValue {
  std::shared_ptr<Session> session;
  Owned<Value> value;
};

void ReleaseHeld(void* context, void* /*data*/, size_t /*capacity*/) noexcept {
  delete static_cast<HeldValue*>(context);
}

// The engine hands an input that is an output as well back as it came.
bool IsOneOf(std::span<const BatchInput> inputs, const void* data) {
  return std::any_of(inputs.begin(), inputs.end(),
                     [&](const BatchInput& input) { return input.tensor.data.data() == data; });
}

Shape PredictShape(const OutputPlan& plan, std::span<const BatchInput> inputs, bool* is_known) {
  Shape shape;
  *is_known = plan.is_predictable;
  for (const OutputDim& dim : plan.dims) {
    int64_t size = dim.source == OutputDim::Source::kFixed ? dim.size : -1;
    if (dim.source == OutputDim::Source::kInput) {
      for (const BatchInput& input : inputs) {
        if (input.index == dim.input && dim.axis < input.tensor.shape.rank()) {
          size = input.tensor.shape[dim.axis];
        }
      }
    }
    *is_known &= size >= 0;
    shape.Append(size);
  }
  return shape;
}

}  // namespace

OrtInstance::OrtInstance(const OrtModel& model, std::string name)
    : model_(model),
      library_(model.library()),
      api_(model.library().api()),
      name_(std::move(name)) {}

OrtInstance::~OrtInstance() { Clear(); }

Status OrtInstance::Execute(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                            std::vector<BatchOutput>* outputs) {
  Clear();  // what an exception in the last batch may have left
  Status status = SetInputs(inputs);
  if (status.ok()) status = SetOutputs(inputs, wanted, predicts_outputs_);
  if (status.ok()) {
    status = Run();
    const bool has_predicted =
        std::find(is_predicted_.begin(), is_predicted_.end(), 1) != is_predicted_.end();
    if (!status.ok() && has_predicted) status = RunAgain(inputs, wanted, std::move(status));
  }
  if (status.ok()) status = TakeOutputs(inputs, outputs);
  Clear();
  return status;
}

Status OrtInstance::SetInputs(std::span<const BatchInput> inputs) {
  for (const BatchInput& input : inputs) PENSTOCK_RETURN_IF_ERROR(SetInput(input));
  return Status::Ok();
}

Status OrtInstance::SetInput(const BatchInput& input) {
  const TensorSpec& spec = model_.signature().inputs[input.index];
  const TensorView& tensor = input.tensor;
  input_names_.push_back(spec.name.c_str());
  Value*& value = input_values_.emplace_back(nullptr);
  if (spec.dtype == DataType::kBytes) {
    Result<Owned<Value>> strings = MakeStringTensor(library_, tensor);
    if (!strings.ok()) {
      return Status(strings.status().code(),
                    StrCat(model_.label(), ": ", strings.status().message()));
    }
    value = strings->release();
  } else {
    // The engine only reads inputs, whatever its signature says.
    auto* data = const_cast<uint8_t*>(tensor.data.empty() ? g_empty.data() : tensor.data.data());
    ErrorStatus* error = api_.CreateTensorWithDataAsOrtValue(
        library_.cpu_memory(), data, tensor.data.size(), tensor.shape.begin(), tensor.shape.rank(),
        ToElementType(spec.dtype), &value);
    if (error != nullptr) {
      return library_.ToStatus(error, StrCat(model_.label(), ": input '", spec.name, "'"));
    }
  }
  return Status::Ok();
}

Status OrtInstance::SetOutputs(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                               bool may_predict) {
  for (const size_t index : wanted) {
    const TensorSpec& spec = model_.signature().outputs[index];
    output_names_.push_back(spec.name.c_str());
    output_values_.push_back(nullptr);
    is_predicted_.push_back(0);
    BatchOutput& result = results_.emplace_back();
    result.index = index;
    result.dtype = spec.dtype;
    // Asked for twice, the engine would fill the last place only.
    const bool is_single = std::count(wanted.begin(), wanted.end(), index) == 1;
    bool is_known = false;
    const Shape shape = may_predict && is_single
                            ? PredictShape(model_.output_plans()[index], inputs, &is_known)
                            : Shape();
    if (is_known) PENSTOCK_RETURN_IF_ERROR(SetPredicted(index, shape, &result));
  }
  return Status::Ok();
}

Status OrtInstance::SetPredicted(size_t index, const Shape& shape, BatchOutput* output) {
  const TensorSpec& spec = model_.signature().outputs[index];
  const auto count = shape.NumElements();
  size_t size_bytes = 0;
  if (!count ||
      __builtin_mul_overflow(static_cast<size_t>(*count), DataTypeSize(spec.dtype), &size_bytes)) {
    return InvalidArgument(StrCat(model_.label(), ": output '", spec.name, "' of shape ",
                                  shape.ToString(), " is too large"));
  }
  output->shape = shape;
  output->data = HostPool::Shared().Allocate(size_bytes);
  void* data = size_bytes == 0 ? g_empty.data() : output->data.data();
  is_predicted_.back() = 1;
  ErrorStatus* error = api_.CreateTensorWithDataAsOrtValue(
      library_.cpu_memory(), data, size_bytes, shape.begin(), shape.rank(),
      ToElementType(spec.dtype), &output_values_.back());
  return error == nullptr
             ? Status::Ok()
             : library_.ToStatus(error, StrCat(model_.label(), ": output '", spec.name, "'"));
}

Status OrtInstance::Run() {
  ErrorStatus* error = api_.Run(model_.session().get(), model_.run_options(), input_names_.data(),
                                input_values_.data(), input_values_.size(), output_names_.data(),
                                output_names_.size(), output_values_.data());
  if (error == nullptr) return Status::Ok();
  return library_.ToStatus(error, StrCat(model_.label(), " failed to execute"));
}

Status OrtInstance::RunAgain(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                             Status failure) {
  ClearOutputs();
  PENSTOCK_RETURN_IF_ERROR(SetOutputs(inputs, wanted, /*may_predict=*/false));
  // Where it fails again the model is at fault, not the shapes: the first failure tells it as well.
  if (!Run().ok()) return failure;
  predicts_outputs_ = false;
  Log(LogLevel::kWarning, "onnxruntime",
      StrCat(name_,
             ": an output's shape is not what the model file says; outputs are left to the engine "
             "from now on. It said: ",
             failure.message()));
  return Status::Ok();
}

Status OrtInstance::TakeOutputs(std::span<const BatchInput> inputs,
                                std::vector<BatchOutput>* outputs) {
  for (size_t place = 0; place < results_.size(); ++place) {
    if (is_predicted_[place]) continue;
    PENSTOCK_RETURN_IF_ERROR(TakeOutput(inputs, &output_values_[place], &results_[place]));
  }
  for (BatchOutput& result : results_) outputs->push_back(std::move(result));
  return Status::Ok();
}

Status OrtInstance::CheckOutput(ErrorStatus* error, size_t index) const {
  return error == nullptr ? Status::Ok() : library_.ToStatus(error, OutputLabel(index));
}

std::string OrtInstance::OutputLabel(size_t index) const {
  return StrCat(model_.label(), ": output '", model_.signature().outputs[index].name, "'");
}

Status OrtInstance::ReadShape(const Value* value, BatchOutput* output) const {
  const size_t index = output->index;
  TensorInfo* raw = nullptr;
  PENSTOCK_RETURN_IF_ERROR(CheckOutput(api_.GetTensorTypeAndShape(value, &raw), index));
  const Owned<TensorInfo> info(raw, api_.ReleaseTensorTypeAndShapeInfo);
  size_t rank = 0;
  PENSTOCK_RETURN_IF_ERROR(CheckOutput(api_.GetDimensionsCount(raw, &rank), index));
  if (rank > kMaxRank) {
    return Internal(StrCat(OutputLabel(index), " has ", rank, " dimensions, at most ", kMaxRank,
                           " are supported"));
  }
  std::array<int64_t, kMaxRank> dims{};
  PENSTOCK_RETURN_IF_ERROR(CheckOutput(api_.GetDimensions(raw, dims.data(), rank), index));
  output->shape = Shape(std::span<const int64_t>(dims.data(), rank));
  return Status::Ok();
}

// Hands over an output that lies in the engine's memory.
Status OrtInstance::TakeOutput(std::span<const BatchInput> inputs, Value** value,
                               BatchOutput* output) {
  PENSTOCK_RETURN_IF_ERROR(ReadShape(*value, output));
  const auto count = output->shape.NumElements();
  if (!count) {
    return Internal(StrCat(OutputLabel(output->index), " has shape ", output->shape.ToString()));
  }
  if (output->dtype == DataType::kBytes) {
    PENSTOCK_ASSIGN_OR_RETURN(
        output->data,
        EncodeStringTensor(library_, *value, static_cast<size_t>(*count), &string_offsets_));
    return Status::Ok();
  }
  const size_t size_bytes = static_cast<size_t>(*count) * DataTypeSize(output->dtype);
  if (size_bytes == 0) return Status::Ok();
  void* data = nullptr;
  PENSTOCK_RETURN_IF_ERROR(CheckOutput(api_.GetTensorMutableData(*value, &data), output->index));
  if (IsOneOf(inputs, data)) {  // the caller's memory, only borrowed
    output->data = HostPool::Shared().Allocate(size_bytes);
    std::memcpy(output->data.data(), data, size_bytes);
    return Status::Ok();
  }
  auto held = std::make_unique<HeldValue>(
      HeldValue{model_.session(), Owned<Value>(std::exchange(*value, nullptr), api_.ReleaseValue)});
  output->data = Buffer(data, size_bytes, size_bytes, &ReleaseHeld, held.release());
  return Status::Ok();
}

void OrtInstance::Clear() {
  for (Value* value : input_values_) api_.ReleaseValue(value);
  input_values_.clear();
  input_names_.clear();
  ClearOutputs();
}

void OrtInstance::ClearOutputs() {
  for (Value* value : output_values_) api_.ReleaseValue(value);
  output_values_.clear();
  output_names_.clear();
  is_predicted_.clear();
  results_.clear();
}

}  // namespace penstock::ort
