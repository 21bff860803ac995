#include "protocol/infer_request.h"

#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "base/strcat.h"
#include "base/utf8.h"
#include "protocol/field_reader.h"
#include "protocol/typed_contents.h"

namespace penstock {
namespace {

// Protobuf's own limit; it also keeps every length below within 32 bits.
constexpr size_t kMaxMessageBytes = std::numeric_limits<int32_t>::max();

// Elements that an empty tensor would have if its dimensions of 0 were not there.
constexpr int64_t kMaxEmptyExtent = 1 << 20;

constexpr std::string_view kSharedMemoryRegion = "shared_memory_region";

// Fields of ModelInferRequest.
constexpr uint32_t kModelName = 1;
constexpr uint32_t kModelVersion = 2;
constexpr uint32_t kId = 3;
constexpr uint32_t kParameters = 4;
constexpr uint32_t kInputs = 5;
constexpr uint32_t kOutputs = 6;
constexpr uint32_t kRawInputContents = 7;

// Of InferInputTensor.
constexpr uint32_t kContents = 5;

// The name (field 1 of the request, of an input and of an output) as far as it can be read: for
// messages about what failed before its name came.
std::string_view FindName(std::span<const uint8_t> message) {
  std::string_view name;
  FieldReader reader(message);
  Field field;
  while (reader.Next(&field)) {
    if (field.number == 1 && field.type == WireType::length_delimited) name = field.text();
  }
  return IsValidUtf8(name) ? name : "";
}

Status CheckCount(size_t count, size_t limit, std::string_view what) {
  if (count <= limit) return Status::Ok();
  return InvalidArgument(StrCat("it has more than ", limit, ' ', what));
}

// The same texts as for raw contents of the wrong size.
Status WrongElementCount(const TensorView& tensor, std::string_view model, uint64_t expected,
                         uint64_t got) {
  const std::string who = StrCat(Quoted(tensor.name), " for model ", Quoted(model));
  if (tensor.dtype == DataType::kBytes) {
    return InvalidArgument(
        StrCat("expected ", expected, " string elements for inference input ", who, ", got ", got));
  }
  const size_t element_bytes = DataTypeSize(tensor.dtype);
  return InvalidArgument(StrCat("input byte size mismatch for input ", who, ". Expected ",
                                expected * element_bytes, ", got ", got * element_bytes));
}

Status CheckType(const Field& field, WireType expected, std::string_view what) {
  if (field.type == expected) return Status::Ok();
  return InvalidArgument(StrCat(what, " has wire type ", static_cast<uint32_t>(field.type),
                                " instead of ", static_cast<uint32_t>(expected)));
}

Status ReadString(const Field& field, std::string_view what, std::string_view* text) {
  PENSTOCK_RETURN_IF_ERROR(CheckType(field, WireType::length_delimited, what));
  if (!IsValidUtf8(field.text())) return InvalidArgument(StrCat(what, " is not valid UTF-8"));
  *text = field.text();  // only now: an id is echoed with the refusal too
  return Status::Ok();
}

Status CheckEnd(const FieldReader& reader, std::string_view what) {
  if (reader.error() == nullptr) return Status::Ok();
  return InvalidArgument(StrCat(what, " is malformed: ", reader.error()));
}

// InferParameter: the member of the oneof that comes last counts.
Status ReadParameterValue(std::span<const uint8_t> message, std::optional<ParameterValue>* value) {
  FieldReader reader(message);
  Field field;
  while (reader.Next(&field)) {
    switch (field.number) {
      case 1:
        PENSTOCK_RETURN_IF_ERROR(CheckType(field, WireType::varint, "bool_param"));
        *value = field.value != 0;
        break;
      case 2:
        PENSTOCK_RETURN_IF_ERROR(CheckType(field, WireType::varint, "int64_param"));
        *value = static_cast<int64_t>(field.value);
        break;
      case 3: {
        std::string_view text;
        PENSTOCK_RETURN_IF_ERROR(ReadString(field, "string_param", &text));
        *value = text;
        break;
      }
      case 4: {
        PENSTOCK_RETURN_IF_ERROR(CheckType(field, WireType::fixed64, "double_param"));
        double number = 0;
        std::memcpy(&number, field.bytes.data(), sizeof(number));
        *value = number;
        break;
      }
      case 5:
        PENSTOCK_RETURN_IF_ERROR(CheckType(field, WireType::varint, "uint64_param"));
        *value = field.value;
        break;
      default:
        break;
    }
  }
  return CheckEnd(reader, "the value");
}

Result<Parameter> ReadParameter(const Field& entry) {
  PENSTOCK_RETURN_IF_ERROR(CheckType(entry, WireType::length_delimited, "a parameter"));
  std::string_view key;
  std::optional<ParameterValue> value;
  FieldReader reader(entry.bytes);
  Field field;
  while (reader.Next(&field)) {
    if (field.number == 1) {
      PENSTOCK_RETURN_IF_ERROR(ReadString(field, "the key of a parameter", &key));
    } else if (field.number == 2) {
      PENSTOCK_RETURN_IF_ERROR(CheckType(field, WireType::length_delimited, "a parameter's value"));
      const Status status = ReadParameterValue(field.bytes, &value);
      if (!status.ok()) {
        return InvalidArgument(StrCat("parameter ", Quoted(key), ": ", status.message()));
      }
    }
  }
  PENSTOCK_RETURN_IF_ERROR(CheckEnd(reader, "a parameter"));
  if (!value) return InvalidArgument(StrCat("parameter ", Quoted(key), " has no value"));
  return Parameter{key, *value};
}

// Collects the dimensions of a shape, which come packed, one by one or mixed.
class ShapeReader {
 public:
  Status Add(const Field& field) {
    if (field.type == WireType::varint) {
      AddDim(field.value);
      return Status::Ok();
    }
    PENSTOCK_RETURN_IF_ERROR(CheckType(field, WireType::length_delimited, "the shape"));
    const uint8_t* pos = field.bytes.data();
    const uint8_t* const end = pos + field.bytes.size();
    while (pos != end) {
      uint64_t dim = 0;
      if (const char* error = ReadVarint(&pos, end, &dim)) {
        return InvalidArgument(StrCat("the shape is malformed: ", error));
      }
      AddDim(dim);
    }
    return Status::Ok();
  }

  Status Finish(DataType dtype, Shape* shape) const {
    if (num_dims_ > kMaxRank) {
      return InvalidArgument(
          StrCat("the shape has ", num_dims_, " dimensions, at most ", kMaxRank, " are allowed"));
    }
    for (const int64_t dim : shape_) {
      if (dim < 0) {
        return InvalidArgument(
            StrCat("the shape ", shape_.ToString(), " has a negative dimension"));
      }
    }
    // Counted in bytes, so that nobody downstream overflows; a BYTES element takes 4 at least.
    const size_t element_bytes = dtype == DataType::kBytes ? 4 : DataTypeSize(dtype);
    const std::optional<int64_t> elements = shape_.NumElements();
    if (!elements ||
        *elements > std::numeric_limits<int64_t>::max() / static_cast<int64_t>(element_bytes)) {
      return InvalidArgument(StrCat("the shape ", shape_.ToString(), " is too large"));
    }
    if (*elements == 0 && !IsSmallWithoutZeros()) {
      return InvalidArgument(StrCat("the shape ", shape_.ToString(), " is too large for no data"));
    }
    *shape = shape_;
    return Status::Ok();
  }

 private:
  // No bytes on the wire pay for what the other dimensions of an empty tensor make a model do.
  bool IsSmallWithoutZeros() const {
    Shape others;
    for (const int64_t dim : shape_) {
      if (dim != 0) others.Append(dim);
    }
    const std::optional<int64_t> extent = others.NumElements();
    return extent && *extent <= kMaxEmptyExtent;
  }

  void AddDim(uint64_t dim) {
    if (num_dims_++ < kMaxRank) shape_.Append(static_cast<int64_t>(dim));
  }

  Shape shape_;  // the first kMaxRank dimensions
  size_t num_dims_ = 0;
};

// Three passes over the top level, so that the order of the fields does not matter: the request's
// own fields, then inputs and outputs, then the data of the inputs, of which it is by then known
// whether it is raw or typed. A pass costs a few bytes per field; only the last one touches tensor
// data.
class RequestParser {
 public:
  RequestParser(std::span<const uint8_t> message, HostPool& pool, InferRequestView* request)
      : message_(message), pool_(pool), request_(*request) {}

  Status Run() {
    if (message_.size() > kMaxMessageBytes) {
      return InvalidArgument(StrCat("an inference request of ", message_.size(),
                                    " bytes is over the limit of protobuf, ", kMaxMessageBytes));
    }
    PENSTOCK_RETURN_IF_ERROR(ReadRequestFields());
    PENSTOCK_RETURN_IF_ERROR(ReadTensors());
    PENSTOCK_RETURN_IF_ERROR(CheckSharedInputs());
    return num_raw_ != 0 ? AssignRawContents() : DecodeTypedContents();
  }

 private:
  Status ReadRequestFields();
  Status ReadRequestField(const Field& field);
  Status ReadTensors();
  Status ReadInput(const Field& field);
  Status ReadInputFields(std::span<const uint8_t> message, InferInputView* input);
  Status ReadOutput(const Field& field);
  Status AddParameter(const Field& entry);
  Status CheckSharedInputs() const;
  Status CheckRawContents() const;
  Status AssignRawContents();
  Status DecodeTypedContents();
  Status DecodeInput(std::span<const uint8_t> message, InferInputView* input);
  bool IsInSharedMemory(const InferInputView& input) const;
  Status Fault(std::string_view what, std::string_view detail) const;
  Status TensorFault(std::string_view kind, const Field& field, const Status& status) const;

  const std::span<const uint8_t> message_;
  HostPool& pool_;
  InferRequestView& request_;
  size_t num_inputs_ = 0;
  size_t num_outputs_ = 0;
  size_t num_raw_ = 0;
  std::vector<bool> has_contents_;  // by input; empty unless one has contents
};

// "<what> for model 'm': <detail>"
Status RequestParser::Fault(std::string_view what, std::string_view detail) const {
  return InvalidArgument(StrCat(what, " for model ", Quoted(FindName(message_)), ": ", detail));
}

Status RequestParser::TensorFault(std::string_view kind, const Field& field,
                                  const Status& status) const {
  return Fault(StrCat(kind, ' ', Quoted(FindName(field.bytes))), status.message());
}

Status RequestParser::ReadRequestFields() {
  FieldReader reader(message_);
  Field field;
  while (reader.Next(&field)) {
    const Status status = ReadRequestField(field);
    if (!status.ok()) return Fault("inference request", status.message());
  }
  const Status status = CheckEnd(reader, "ModelInferRequest");
  if (!status.ok()) return Fault("inference request", status.message());
  request_.request_parameters.count = static_cast<uint32_t>(request_.parameters.size());
  request_.inputs.reserve(num_inputs_);
  request_.outputs.reserve(num_outputs_);
  return Status::Ok();
}

Status RequestParser::ReadRequestField(const Field& field) {
  switch (field.number) {
    case kModelName:
      return ReadString(field, "model_name", &request_.model_name);
    case kModelVersion:
      return ReadString(field, "model_version", &request_.model_version);
    case kId:
      return ReadString(field, "id", &request_.id);
    case kParameters:
      return AddParameter(field);
    case kInputs:
      PENSTOCK_RETURN_IF_ERROR(CheckCount(++num_inputs_, kMaxRequestTensors, "inputs"));
      return CheckType(field, WireType::length_delimited, "an input");
    case kOutputs:
      PENSTOCK_RETURN_IF_ERROR(CheckCount(++num_outputs_, kMaxRequestTensors, "outputs"));
      return CheckType(field, WireType::length_delimited, "an output");
    case kRawInputContents:
      ++num_raw_;
      return CheckType(field, WireType::length_delimited, "raw_input_contents");
    default:
      return Status::Ok();
  }
}

Status RequestParser::AddParameter(const Field& entry) {
  PENSTOCK_RETURN_IF_ERROR(
      CheckCount(request_.parameters.size() + 1, kMaxRequestParameters, "parameters"));
  PENSTOCK_ASSIGN_OR_RETURN(const Parameter parameter, ReadParameter(entry));
  request_.parameters.push_back(parameter);
  return Status::Ok();
}

Status RequestParser::ReadTensors() {
  FieldReader reader(message_);
  Field field;
  while (reader.Next(&field)) {
    if (field.number == kInputs) {
      const Status status = ReadInput(field);
      if (!status.ok()) return TensorFault("input", field, status);
    } else if (field.number == kOutputs) {
      const Status status = ReadOutput(field);
      if (!status.ok()) return TensorFault("requested output", field, status);
    }
  }
  return Status::Ok();
}

Status RequestParser::ReadInput(const Field& field) {
  InferInputView& input = request_.inputs.emplace_back();
  input.parameters.first = static_cast<uint32_t>(request_.parameters.size());
  PENSTOCK_RETURN_IF_ERROR(ReadInputFields(field.bytes, &input));
  input.parameters.count =
      static_cast<uint32_t>(request_.parameters.size()) - input.parameters.first;
  return Status::Ok();
}

Status RequestParser::ReadInputFields(std::span<const uint8_t> message, InferInputView* input) {
  std::string_view datatype;
  ShapeReader shape;
  FieldReader reader(message);
  Field field;
  while (reader.Next(&field)) {
    switch (field.number) {
      case 1:
        PENSTOCK_RETURN_IF_ERROR(ReadString(field, "the name", &input->tensor.name));
        break;
      case 2:
        PENSTOCK_RETURN_IF_ERROR(ReadString(field, "the datatype", &datatype));
        break;
      case 3:
        PENSTOCK_RETURN_IF_ERROR(shape.Add(field));
        break;
      case 4:
        PENSTOCK_RETURN_IF_ERROR(AddParameter(field));
        break;
      case kContents:
        PENSTOCK_RETURN_IF_ERROR(CheckType(field, WireType::length_delimited, "contents"));
        has_contents_.resize(num_inputs_);
        has_contents_[request_.inputs.size() - 1] = true;
        break;
      default:
        break;
    }
  }
  PENSTOCK_RETURN_IF_ERROR(CheckEnd(reader, "the tensor"));
  input->tensor.dtype = ParseDataType(datatype);
  if (input->tensor.dtype == DataType::kInvalid) {
    return InvalidArgument(StrCat("unknown datatype ", Quoted(datatype)));
  }
  return shape.Finish(input->tensor.dtype, &input->tensor.shape);
}

Status RequestParser::ReadOutput(const Field& field) {
  InferOutputView& output = request_.outputs.emplace_back();
  output.parameters.first = static_cast<uint32_t>(request_.parameters.size());
  FieldReader reader(field.bytes);
  Field member;
  while (reader.Next(&member)) {
    if (member.number == 1) {
      PENSTOCK_RETURN_IF_ERROR(ReadString(member, "the name", &output.name));
    } else if (member.number == 2) {
      PENSTOCK_RETURN_IF_ERROR(AddParameter(member));
    }
  }
  output.parameters.count =
      static_cast<uint32_t>(request_.parameters.size()) - output.parameters.first;
  return CheckEnd(reader, "it");
}

bool RequestParser::IsInSharedMemory(const InferInputView& input) const {
  for (const Parameter& parameter : request_.ParametersOf(input.parameters)) {
    if (parameter.key == kSharedMemoryRegion) return true;
  }
  return false;
}

Status RequestParser::CheckSharedInputs() const {
  for (size_t i = 0; i < has_contents_.size(); ++i) {
    const InferInputView& input = request_.inputs[i];
    if (has_contents_[i] && IsInSharedMemory(input)) {
      return InvalidArgument(
          StrCat("unexpected 'content' provided when using shared memory for input tensor ",
                 Quoted(input.tensor.name), " for model ", Quoted(request_.model_name)));
    }
  }
  return Status::Ok();
}

Status RequestParser::CheckRawContents() const {
  size_t expected = 0;
  for (size_t i = 0; i < request_.inputs.size(); ++i) {
    const InferInputView& input = request_.inputs[i];
    if (!has_contents_.empty() && has_contents_[i]) {
      return InvalidArgument(
          StrCat("contents field must not be specified when using raw_input_contents for ",
                 Quoted(input.tensor.name), " for model ", Quoted(request_.model_name)));
    }
    if (!IsInSharedMemory(input)) ++expected;
  }
  if (num_raw_ == expected) return Status::Ok();
  return InvalidArgument(StrCat("expected ", expected, " entries in raw_input_contents for model ",
                                Quoted(request_.model_name), " but got ", num_raw_));
}

Status RequestParser::AssignRawContents() {
  PENSTOCK_RETURN_IF_ERROR(CheckRawContents());
  auto input = request_.inputs.begin();
  FieldReader reader(message_);
  Field field;
  while (reader.Next(&field)) {
    if (field.number != kRawInputContents) continue;
    while (IsInSharedMemory(*input)) ++input;
    input->tensor.data = field.bytes;
    ++input;
  }
  return Status::Ok();
}

Status RequestParser::DecodeTypedContents() {
  if (has_contents_.empty()) return Status::Ok();
  size_t next_input = 0;
  FieldReader reader(message_);
  Field field;
  while (reader.Next(&field)) {
    if (field.number != kInputs) continue;
    const size_t index = next_input++;
    if (has_contents_[index]) {
      PENSTOCK_RETURN_IF_ERROR(DecodeInput(field.bytes, &request_.inputs[index]));
    }
  }
  return Status::Ok();
}

Status RequestParser::DecodeInput(std::span<const uint8_t> message, InferInputView* input) {
  TensorView& tensor = input->tensor;
  const auto fault = [&](const Status& status) {
    return Fault(StrCat("input ", Quoted(tensor.name)), status.message());
  };
  const auto contents = TypedContents::Measure(message, tensor.dtype);
  if (!contents.ok()) return fault(contents.status());
  const auto expected = static_cast<uint64_t>(*tensor.shape.NumElements());
  if (contents->num_elements() != expected) {
    return WrongElementCount(tensor, request_.model_name, expected, contents->num_elements());
  }
  if (contents->in_place()) {
    tensor.data = *contents->in_place();
    return Status::Ok();
  }
  Buffer buffer = pool_.Allocate(contents->size_bytes());
  const Status status = contents->Write(buffer.span());
  if (!status.ok()) return fault(status);
  tensor.data = std::as_const(buffer).span();
  request_.decoded.push_back(std::move(buffer));
  return Status::Ok();
}

}  // namespace

Status ParseInferRequest(std::span<const uint8_t> message, HostPool& pool,
                         InferRequestView* request) {
  request->Clear();
  return RequestParser(message, pool, request).Run();
}

std::string_view PeekRequestId(std::span<const uint8_t> message) {
  FieldReader reader(message);
  Field field;
  for (uint32_t i = 0; i < kId && reader.Next(&field); ++i) {
    if (field.number != kId || field.type != WireType::length_delimited) continue;
    return IsValidUtf8(field.text()) ? field.text() : "";
  }
  return "";
}

}  // namespace penstock
