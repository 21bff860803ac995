#include "engine/bind_request.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string>
#include <utility>

#include "base/strcat.h"
#include "base/utf8.h"

namespace penstock {
namespace {

constexpr std::string_view kReservedPrefix = "triton_";
constexpr std::string_view kDigest = "penstock_digest";
constexpr std::string_view kEmptyFinalResponse = "triton_enable_empty_final_response";
constexpr std::string_view kBackground = "penstock_background";
constexpr size_t kMaxNameListBytes = 1024;  // what of a client's names it gets back in a message

// A whole number from an int64 or uint64 parameter.
Result<int64_t> WholeNumber(const Parameter& parameter) {
  if (const auto* value = std::get_if<int64_t>(&parameter.value); value != nullptr && *value >= 0) {
    return *value;
  }
  if (const auto* value = std::get_if<uint64_t>(&parameter.value);
      value != nullptr && *value <= INT64_MAX) {
    return static_cast<int64_t>(*value);
  }
  return InvalidArgument(StrCat("invalid value for parameter ", Quoted(parameter.key),
                                ": expected a non-negative int64_param or uint64_param"));
}

Status ReadRequestParameters(InferRequest* request) {
  for (const Parameter& parameter : request->view.ParametersOf(request->view.request_parameters)) {
    if (parameter.key == "priority") {
      PENSTOCK_ASSIGN_OR_RETURN(const int64_t value, WholeNumber(parameter));
      request->priority = static_cast<uint32_t>(std::min<int64_t>(value, UINT32_MAX));
    } else if (parameter.key == "timeout") {
      PENSTOCK_ASSIGN_OR_RETURN(request->timeout_us, WholeNumber(parameter));
    } else if (parameter.key == kEmptyFinalResponse) {
      const auto* const wants = std::get_if<bool>(&parameter.value);
      request->wants_empty_final = wants != nullptr && *wants;
    } else if (parameter.key == kBackground) {
      const auto* const is_background = std::get_if<bool>(&parameter.value);
      if (is_background == nullptr) {
        return InvalidArgument(
            StrCat("invalid value for parameter '", kBackground, "': expected a bool_param"));
      }
      request->is_background |= *is_background;
    } else if (parameter.key == kDigest) {
      const auto* const wants = std::get_if<bool>(&parameter.value);
      request->wants_digest = wants != nullptr && *wants;
    } else if (parameter.key.starts_with(kReservedPrefix)) {
      return InvalidArgument(
          StrCat("parameter keys starting with 'triton_' are reserved for Triton usage. Only the "
                 "following keys starting with 'triton_' are allowed: ",
                 kEmptyFinalResponse));
    }
  }
  return Status::Ok();
}

std::string NameList(const std::vector<std::string_view>& names) {
  std::string text = "[";
  for (const std::string_view name : names) {
    if (text.size() > 1) text.append(",");
    if (text.size() > kMaxNameListBytes) return text.append("...]");
    text.append(Quoted(name));
  }
  return text.append("]");
}

Status WrongInputCount(const VersionSpec& spec, const InferRequest& request) {
  std::vector<std::string_view> got;
  std::vector<std::string_view> missing;
  size_t required = 0;
  for (const InferInputView& input : request.view.inputs) got.push_back(input.tensor.name);
  for (size_t i = 0; i < spec.inputs.size(); ++i) {
    if (spec.inputs[i].is_optional) continue;
    ++required;
    if (request.inputs[i] == nullptr) missing.push_back(spec.inputs[i].name);
  }
  const std::string expected =
      required == spec.inputs.size()
          ? StrCat("expected ", required)
          : StrCat("expected number of inputs between ", required, " and ", spec.inputs.size());
  const std::string_view unit = required == spec.inputs.size() ? " inputs" : "";
  return InvalidArgument(StrCat(expected, unit, " but got ", got.size(), " inputs for model '",
                                spec.model_name, "'. Got input(s) ", NameList(got),
                                ", but missing required input(s) ", NameList(missing),
                                ". Please provide all required input(s)."));
}

Status MatchInputs(const VersionSpec& spec, InferRequest* request) {
  request->inputs.assign(spec.inputs.size(), nullptr);
  for (const InferInputView& input : request->view.inputs) {
    const auto found =
        std::find_if(spec.inputs.begin(), spec.inputs.end(),
                     [&](const InputSpec& s) { return s.name == input.tensor.name; });
    if (found == spec.inputs.end()) {
      return InvalidArgument(StrCat("unexpected inference input ", Quoted(input.tensor.name),
                                    " for model '", spec.model_name, "'"));
    }
    const InferInputView*& slot = request->inputs[found - spec.inputs.begin()];
    if (slot != nullptr) {
      return InvalidArgument(StrCat("input '", input.tensor.name,
                                    "' already exists in request for model '", spec.model_name,
                                    "'"));
    }
    slot = &input;
  }
  for (size_t i = 0; i < spec.inputs.size(); ++i) {
    if (request->inputs[i] == nullptr && !spec.inputs[i].is_optional) {
      return WrongInputCount(spec, *request);
    }
  }
  return Status::Ok();
}

Status CheckRows(const VersionSpec& spec, InferRequest* request) {
  int64_t rows = -1;
  for (const InferInputView* input : request->inputs) {
    if (input == nullptr) continue;
    const TensorView& tensor = input->tensor;
    if (tensor.shape.empty()) {
      return InvalidArgument(StrCat("input '", tensor.name,
                                    "' has no shape but model requires batch dimension for '",
                                    spec.model_name, "'"));
    }
    if (rows >= 0 && tensor.shape[0] != rows) {
      return InvalidArgument(StrCat("input '", tensor.name,
                                    "' batch size does not match other inputs for '",
                                    spec.model_name, "'"));
    }
    rows = tensor.shape[0];
  }
  if (rows > spec.max_batch_size) {
    return InvalidArgument(StrCat("inference request batch-size must be <= ", spec.max_batch_size,
                                  " for '", spec.model_name, "', got ", rows));
  }
  if (rows < 1) {
    return InvalidArgument(StrCat("inference request batch-size must be >= 1 for '",
                                  spec.model_name, "', got ", std::max<int64_t>(rows, 0)));
  }
  request->rows = static_cast<uint32_t>(rows);
  const uint32_t most = spec.max_background_rows;
  if (request->is_background && most != 0 && request->rows > most) {
    return InvalidArgument(StrCat("a background request for '", spec.model_name, "' has at most ",
                                  most, " rows (--background-batch-size), got ", rows));
  }
  return Status::Ok();
}

bool ShapeMatches(const InputSpec& spec, std::span<const int64_t> dims) {
  if (dims.size() != spec.dims.rank()) return false;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (spec.dims[i] >= 0 && spec.dims[i] != dims[i]) return false;
  }
  return true;
}

Status WrongShape(const VersionSpec& spec, const InputSpec& input, const TensorView& tensor) {
  const bool batched = spec.has_batch_dimension();
  const Shape expected = batched ? input.dims.WithFirst(-1) : input.dims;
  const std::string_view note =
      batched ? ". NOTE: Setting a non-zero max_batch_size in the model config requires a batch "
                "dimension to be prepended to each input shape."
              : "";
  return InvalidArgument(StrCat("unexpected shape for input '", input.name, "' for model '",
                                spec.model_name, "'. Expected ", expected.ToString(), ", got ",
                                tensor.shape.ToString(), note));
}

// Walks the length prefixes: exactly `count` elements must fill the bytes.
Status CheckBytesElements(const VersionSpec& spec, const TensorView& tensor, int64_t count) {
  std::span<const uint8_t> rest = tensor.data;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t length = 0;
    if (rest.empty()) {
      return InvalidArgument(StrCat("expected ", count, " string elements for inference input '",
                                    tensor.name, "' for model '", spec.model_name, "', got ", i));
    }
    if (rest.size() < sizeof(length)) {
      return InvalidArgument(StrCat(
          "incomplete string length indicator for inference input '", tensor.name, "' for model '",
          spec.model_name, "', expecting 4 bytes but only ", rest.size(), " bytes available"));
    }
    std::memcpy(&length, rest.data(), sizeof(length));
    rest = rest.subspan(sizeof(length));
    if (length > rest.size()) {
      return InvalidArgument(StrCat("incomplete string data for inference input '", tensor.name,
                                    "' for model '", spec.model_name,
                                    "', expecting string of length ", length, " but only ",
                                    rest.size(), " bytes available"));
    }
    rest = rest.subspan(length);
  }
  if (!rest.empty()) {
    return InvalidArgument(StrCat("unexpected number of string elements for inference input '",
                                  tensor.name, "' for model '", spec.model_name, "', expecting ",
                                  count, ", but ", rest.size(), " bytes are left over"));
  }
  return Status::Ok();
}

// Engines count and index with these bytes: one that is 255 makes them read what nobody wrote.
Status CheckBools(const VersionSpec& spec, const TensorView& tensor) {
  uint8_t seen = 0;
  for (const uint8_t byte : tensor.data) seen |= byte;
  if (seen <= 1) return Status::Ok();
  return InvalidArgument(StrCat("input '", tensor.name, "' for model '", spec.model_name,
                                "' has a BOOL element that is neither 0 nor 1"));
}

// The smallest element of BYTES is a length of 0. Whether the lengths fit is seen by whoever has
// read them from the shared memory: what lies there now may be something else by then.
Status CheckSharedBytes(const VersionSpec& spec, const TensorView& tensor, int64_t count,
                        uint64_t size_bytes) {
  const auto least = static_cast<uint64_t>(count) * sizeof(uint32_t);
  if (count == 0 ? size_bytes == 0 : size_bytes >= least) return Status::Ok();
  return InvalidArgument(StrCat("input byte size mismatch for input '", tensor.name,
                                "' for model '", spec.model_name, "'. Expected ",
                                count == 0 ? "" : "at least ", least, ", got ", size_bytes));
}

Status CheckSize(const VersionSpec& spec, const TensorView& tensor, const SharedTensor* shared) {
  const std::optional<int64_t> count = tensor.shape.NumElements();
  int64_t expected = 0;
  if (!count.has_value() ||
      __builtin_mul_overflow(*count, static_cast<int64_t>(DataTypeSize(tensor.dtype)), &expected)) {
    return InvalidArgument(StrCat("the dimensions of input '", tensor.name, "' for model '",
                                  spec.model_name,
                                  "' are out of range: ", tensor.shape.ToString()));
  }
  const uint64_t size_bytes = shared != nullptr ? shared->size_bytes : tensor.data.size();
  if (tensor.dtype == DataType::kBytes) {
    return shared != nullptr ? CheckSharedBytes(spec, tensor, *count, size_bytes)
                             : CheckContents(spec, tensor, *count);
  }
  if (size_bytes != static_cast<uint64_t>(expected)) {
    return InvalidArgument(StrCat("input byte size mismatch for input '", tensor.name,
                                  "' for model '", spec.model_name, "'. Expected ", expected,
                                  ", got ", size_bytes));
  }
  return shared != nullptr ? Status::Ok() : CheckContents(spec, tensor, *count);
}

Status CheckInput(const VersionSpec& spec, const InputSpec& input, const TensorView& tensor,
                  const SharedTensor* shared) {
  if (tensor.dtype != input.dtype) {
    return InvalidArgument(StrCat("inference input '", input.name, "' data-type is '",
                                  DataTypeName(tensor.dtype), "', but model '", spec.model_name,
                                  "' expects '", DataTypeName(input.dtype), "'"));
  }
  const auto dims = tensor.shape.dims().subspan(spec.has_batch_dimension() ? 1 : 0);
  if (!ShapeMatches(input, dims)) return WrongShape(spec, input, tensor);
  return CheckSize(spec, tensor, shared);
}

// The key of request.h: per input whether it is there, then the dimensions that the model leaves
// open.
void MakeKey(const VersionSpec& spec, InferRequest* request) {
  if (spec.has_fixed_shapes()) return;
  const size_t skip = spec.has_batch_dimension() ? 1 : 0;
  for (size_t i = 0; i < spec.inputs.size(); ++i) {
    const InferInputView* input = request->inputs[i];
    if (spec.inputs[i].is_optional) request->key.push_back(input != nullptr ? 1 : 0);
    if (input == nullptr) continue;
    for (size_t axis = 0; axis < spec.inputs[i].dims.rank(); ++axis) {
      if (spec.inputs[i].dims[axis] < 0) request->key.push_back(input->tensor.shape[axis + skip]);
    }
  }
}

Result<uint32_t> Classification(const InferRequestView& view, const InferOutputView& output) {
  int64_t classes = 0;
  for (const Parameter& parameter : view.ParametersOf(output.parameters)) {
    if (parameter.key != "classification") continue;
    PENSTOCK_ASSIGN_OR_RETURN(classes, WholeNumber(parameter));
    if (classes == 0) {
      return InvalidArgument(StrCat("invalid value for parameter 'classification' of output '",
                                    output.name, "': expected > 0"));
    }
  }
  return static_cast<uint32_t>(std::min<int64_t>(classes, UINT32_MAX));
}

std::string TensorOfModel(std::string_view tensor, const VersionSpec& spec) {
  return StrCat("tensor ", Quoted(tensor), " for model '", spec.model_name, "'");
}

Status FindSharedInputs(const VersionSpec& spec, const SharedMemory& memory,
                        InferRequest* request) {
  uint64_t total_bytes = 0;
  for (size_t i = 0; i < spec.inputs.size(); ++i) {
    if (request->inputs[i] == nullptr) continue;
    const auto parameters = request->view.ParametersOf(request->inputs[i]->parameters);
    if (!NamesSharedMemory(parameters)) continue;
    request->shared_inputs.resize(spec.inputs.size());
    SharedTensor& shared = request->shared_inputs[i];
    PENSTOCK_ASSIGN_OR_RETURN(
        shared, FindSharedTensor(memory, parameters, TensorOfModel(spec.inputs[i].name, spec)));
    total_bytes += shared.size_bytes;
    const size_t limit = memory.options().max_request_bytes;
    if (limit != 0 && total_bytes > limit) {
      request->is_over_size = true;
      return ResourceExhausted(StrCat("inputs of ", total_bytes, " bytes in shared memory for '",
                                      spec.model_name, "' exceed the limit of ", limit, " bytes"));
    }
  }
  request->shared_bytes = total_bytes;
  Status own = CheckOwnSize(request->who.get(), request->message.size(), total_bytes);
  request->is_over_size = !own.ok();
  return own;
}

// Appends to request->wanted; and to shared_outputs, once one output of the request is shared.
Status FindSharedOutput(const VersionSpec& spec, const SharedMemory& memory,
                        const InferOutputView& output, WantedOutput wanted, InferRequest* request) {
  request->wanted.push_back(wanted);
  const auto parameters = request->view.ParametersOf(output.parameters);
  if (!NamesSharedMemory(parameters)) return Status::Ok();
  const std::string who = TensorOfModel(output.name, spec);
  PENSTOCK_ASSIGN_OR_RETURN(SharedTensor shared, FindSharedTensor(memory, parameters, who));
  if (wanted.classification > 0) {
    return InvalidArgument(
        StrCat("output can't set both 'shared_memory_region' and 'classification': ", who));
  }
  request->shared_outputs.resize(request->view.outputs.size());
  request->shared_outputs[request->wanted.size() - 1] = std::move(shared);
  return Status::Ok();
}

Status MatchOutputs(const VersionSpec& spec, const SharedMemory& memory, InferRequest* request) {
  const InferRequestView& view = request->view;
  for (const InferOutputView& output : view.outputs) {
    const auto found = std::find_if(spec.outputs.begin(), spec.outputs.end(),
                                    [&](const OutputSpec& s) { return s.name == output.name; });
    if (found == spec.outputs.end()) {
      return InvalidArgument(StrCat("unexpected inference output ", Quoted(output.name),
                                    " for model '", spec.model_name, "'"));
    }
    const auto index = static_cast<uint32_t>(found - spec.outputs.begin());
    if (std::any_of(request->wanted.begin(), request->wanted.end(),
                    [index](const WantedOutput& wanted) { return wanted.index == index; })) {
      return InvalidArgument(StrCat("output '", output.name,
                                    "' already exists in request for model '", spec.model_name,
                                    "'"));
    }
    PENSTOCK_ASSIGN_OR_RETURN(const uint32_t classes, Classification(view, output));
    if (classes > 0 && found->dtype == DataType::kBytes) {
      return InvalidArgument(StrCat("class result not available for output '", output.name,
                                    "' of model '", spec.model_name,
                                    "' due to unsupported type 'BYTES'"));
    }
    PENSTOCK_RETURN_IF_ERROR(FindSharedOutput(spec, memory, output, {index, classes}, request));
  }
  if (request->wanted.empty()) {
    for (uint32_t i = 0; i < spec.outputs.size(); ++i) request->wanted.push_back({i, 0});
  }
  return Status::Ok();
}

}  // namespace

Status BindRequest(const VersionSpec& spec, const SharedMemory& shared_memory,
                   InferRequest* request) {
  PENSTOCK_RETURN_IF_ERROR(ReadRequestParameters(request));
  PENSTOCK_RETURN_IF_ERROR(MatchOutputs(spec, shared_memory, request));
  PENSTOCK_RETURN_IF_ERROR(MatchInputs(spec, request));
  PENSTOCK_RETURN_IF_ERROR(FindSharedInputs(spec, shared_memory, request));
  if (spec.has_batch_dimension()) PENSTOCK_RETURN_IF_ERROR(CheckRows(spec, request));
  for (size_t i = 0; i < spec.inputs.size(); ++i) {
    if (request->inputs[i] == nullptr) continue;
    PENSTOCK_RETURN_IF_ERROR(
        CheckInput(spec, spec.inputs[i], request->inputs[i]->tensor, request->SharedInput(i)));
  }
  MakeKey(spec, request);
  return Status::Ok();
}

bool IsReservedParameter(std::string_view key) {
  return key == "priority" || key == "timeout" || key == kBackground ||
         key.starts_with(kReservedPrefix);
}

bool IsLowered(const InferRequestView& view) {
  for (const Parameter& parameter : view.ParametersOf(view.request_parameters)) {
    const auto* const value =
        parameter.key == kBackground ? std::get_if<bool>(&parameter.value) : nullptr;
    if (value != nullptr && *value) return true;
  }
  return false;
}

Status CheckContents(const VersionSpec& spec, const TensorView& tensor, int64_t count) {
  if (tensor.dtype == DataType::kBytes) return CheckBytesElements(spec, tensor, count);
  return tensor.dtype == DataType::kBool ? CheckBools(spec, tensor) : Status::Ok();
}

Result<std::optional<int64_t>> ParseModelVersion(std::string_view text) {
  if (text.empty()) return std::optional<int64_t>();
  int64_t version = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), version);
  if (error != std::errc() || end != text.data() + text.size() || version < 0) {
    return InvalidArgument(StrCat("failed to get model version from specified version string ",
                                  Quoted(text), " (expected a non-negative integer)"));
  }
  return std::optional<int64_t>(version);
}

}  // namespace penstock
