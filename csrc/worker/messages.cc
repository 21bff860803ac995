#include "worker/messages.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "base/strcat.h"
#include "base/utf8.h"
#include "worker/body.h"

namespace penstock {
namespace {

constexpr uint32_t kDecoupled = 1;
constexpr uint32_t kAnswersRequests = 2;
constexpr uint32_t kBatchesDynamically = 4;
constexpr uint32_t kOptional = 1;
constexpr size_t kMaxNameBytes = 4096;

void PutDims(const Shape& shape, std::string* out) {
  for (const int64_t dim : shape) PutNumber(dim, out);
}

void PutInput(const WorkerInput& input, std::string* out) {
  PutNumber(input.index, out);
  PutNumber(static_cast<uint32_t>(input.dtype), out);
  PutNumber(input.slab, out);
  PutNumber(static_cast<uint32_t>(input.shape.rank()), out);
  PutNumber(input.offset, out);
  PutNumber(input.size, out);
  PutDims(input.shape, out);
}

struct PutValue {
  std::string* out;
  void operator()(bool value) const { PutNumber(uint64_t{value}, out); }
  void operator()(std::string_view value) const { PutText(value, out); }
  template <typename T>
  void operator()(T value) const {
    PutNumber(value, out);
  }
};

void PutRequest(const WorkerRequest& request, std::string* out) {
  PutNumber(request.rows, out);
  PutNumber(request.room, out);
  PutNumber(request.timeout_us, out);
  PutNumber(static_cast<uint32_t>(request.wanted.size()), out);
  PutNumber(static_cast<uint32_t>(request.parameters.size()), out);
  PutNumber(static_cast<uint32_t>(request.id.size()), out);
  for (const size_t index : request.wanted) PutNumber(static_cast<uint32_t>(index), out);
  out->append(request.id);
  for (const Parameter& parameter : request.parameters) {
    PutNumber(static_cast<uint32_t>(parameter.value.index()), out);
    PutText(parameter.key, out);
    std::visit(PutValue{out}, parameter.value);
  }
}

bool ReadDataType(BodyReader* reader, DataType* dtype) {
  uint32_t number = 0;
  if (!reader->Read(&number) || number == 0 || number > static_cast<uint32_t>(DataType::kBytes)) {
    return false;
  }
  *dtype = static_cast<DataType>(number);
  return true;
}

bool ReadDims(BodyReader* reader, uint32_t rank, int64_t least, Shape* shape) {
  if (rank > kMaxRank) return false;
  shape->Clear();
  for (uint32_t i = 0; i < rank; ++i) {
    int64_t dim = 0;
    if (!reader->Read(&dim) || dim < least) return false;
    shape->Append(dim);
  }
  return true;
}

bool ReadSpec(BodyReader* reader, WorkerTensorSpec* spec) {
  uint32_t flags = 0;
  uint32_t rank = 0;
  uint32_t name_size = 0;
  if (!ReadDataType(reader, &spec->dtype) || !reader->Read(&flags) || !reader->Read(&rank) ||
      !reader->Read(&name_size) || name_size > kMaxNameBytes) {
    return false;
  }
  spec->is_optional = (flags & kOptional) != 0;
  return ReadDims(reader, rank, -1, &spec->dims) && reader->ReadText(name_size, &spec->name) &&
         IsValidUtf8(spec->name);
}

bool ReadSpecs(BodyReader* reader, uint32_t count, std::vector<WorkerTensorSpec>* specs) {
  if (count > kMaxWorkerTensors) return false;
  for (uint32_t i = 0; i < count; ++i) {
    if (!ReadSpec(reader, &specs->emplace_back())) return false;
  }
  return true;
}

bool ReadInputPart(BodyReader* reader, WorkerInputPart* part) {
  return reader->Read(&part->input) && reader->Read(&part->slab) && reader->Read(&part->memory) &&
         reader->Read(&part->offset) && reader->Read(&part->size);
}

bool ReadOutputPart(BodyReader* reader, WorkerOutputPart* part) {
  uint32_t is_read = 0;
  if (!reader->Read(&part->wanted) || !reader->Read(&part->first_row) ||
      !reader->Read(&part->rows) || !reader->Read(&is_read) || !reader->Read(&part->memory) ||
      !reader->Read(&part->offset) || !reader->Read(&part->size)) {
    return false;
  }
  part->is_read_on_host = is_read != 0;
  return true;
}

bool ReadParts(BodyReader* reader, WorkerRun* run) {
  uint32_t inputs = 0;
  uint32_t outputs = 0;
  bool is_read = reader->Read(&inputs) && reader->Read(&outputs);
  for (uint32_t i = 0; is_read && i < inputs; ++i) {
    is_read = ReadInputPart(reader, &run->input_parts.emplace_back());
  }
  for (uint32_t i = 0; is_read && i < outputs; ++i) {
    is_read = ReadOutputPart(reader, &run->output_parts.emplace_back());
  }
  return is_read;
}

// Whether the shape's elements take just these bytes; of BYTES: may.
bool HoldsItsShape(const WorkerOutput& output) {
  const auto count = output.shape.NumElements();
  if (!count) return false;
  const auto elements = static_cast<uint64_t>(*count);
  if (output.dtype == DataType::kBytes) return elements <= output.size / sizeof(uint32_t);
  const size_t each = DataTypeSize(output.dtype);
  return output.size % each == 0 && output.size / each == elements;
}

bool IsOneOf(std::span<const size_t> indices, size_t index) {
  return std::find(indices.begin(), indices.end(), index) != indices.end();
}

// Of what is read, what a result may have.
struct ResultBounds {
  uint64_t slab_bytes = 0;
  uint64_t left_bytes = 0;  // of what outputs may take together, so that none lie on one another
  std::span<const size_t> unread;
};

bool ReadOutput(BodyReader* reader, const ResultBounds& bounds, WorkerOutput* output) {
  uint32_t rank = 0;
  return reader->Read(&output->index) && ReadDataType(reader, &output->dtype) &&
         reader->Read(&rank) && reader->Read(&output->offset) && reader->Read(&output->size) &&
         ReadDims(reader, rank, 0, &output->shape) && output->offset <= bounds.slab_bytes &&
         output->size <= bounds.slab_bytes - output->offset &&
         (HoldsItsShape(*output) || (output->size == 0 && IsOneOf(bounds.unread, output->index)));
}

bool ReadResult(BodyReader* reader, ResultBounds* bounds, WorkerResult* result) {
  uint32_t code = 0;
  uint32_t text_size = 0;
  uint32_t outputs = 0;
  if (!reader->Read(&code) || code > static_cast<uint32_t>(StatusCode::kUnauthenticated) ||
      !reader->Read(&text_size) || !reader->Read(&outputs) || outputs > kMaxWorkerTensors ||
      !reader->ReadText(text_size, &result->text)) {
    return false;
  }
  result->code = static_cast<StatusCode>(code);
  result->text.resize(std::min(result->text.size(), kMaxWorkerTextBytes));
  for (uint32_t i = 0; i < outputs; ++i) {
    WorkerOutput& output = result->outputs.emplace_back();
    if (!ReadOutput(reader, *bounds, &output) || output.size > bounds->left_bytes) return false;
    bounds->left_bytes -= output.size;
  }
  return true;
}

void PutSpec(const WorkerTensorSpec& spec, std::string* out) {
  PutNumber(static_cast<uint32_t>(spec.dtype), out);
  PutNumber(spec.is_optional ? kOptional : 0U, out);
  PutNumber(static_cast<uint32_t>(spec.dims.rank()), out);
  PutNumber(static_cast<uint32_t>(spec.name.size()), out);
  PutDims(spec.dims, out);
  out->append(spec.name);
}

bool ReadInput(BodyReader* reader, WorkerInput* input) {
  uint32_t rank = 0;
  return reader->Read(&input->index) && ReadDataType(reader, &input->dtype) &&
         reader->Read(&input->slab) && reader->Read(&rank) && reader->Read(&input->offset) &&
         reader->Read(&input->size) && ReadDims(reader, rank, 0, &input->shape);
}

}  // namespace

void EncodeSignature(const WorkerSignature& signature, std::string* body) {
  PutNumber((signature.is_decoupled ? kDecoupled : 0U) |
                (signature.answers_requests ? kAnswersRequests : 0U) |
                (signature.batches_dynamically ? kBatchesDynamically : 0U),
            body);
  PutNumber(signature.max_batch_size, body);
  PutNumber(static_cast<uint32_t>(signature.inputs.size()), body);
  PutNumber(static_cast<uint32_t>(signature.outputs.size()), body);
  for (const WorkerTensorSpec& spec : signature.inputs) PutSpec(spec, body);
  for (const WorkerTensorSpec& spec : signature.outputs) PutSpec(spec, body);
}

Result<WorkerRun> DecodeRun(std::span<const uint8_t> body) {
  BodyReader reader(body);
  uint32_t inputs = 0;
  uint32_t wanted = 0;
  uint32_t requests = 0;
  bool is_read = reader.Read(&inputs) && reader.Read(&wanted) && reader.Read(&requests) &&
                 requests == 0 && inputs <= kMaxWorkerTensors && wanted <= kMaxWorkerTensors;
  WorkerRun run;
  for (uint32_t i = 0; is_read && i < inputs; ++i) {
    is_read = ReadInput(&reader, &run.inputs.emplace_back());
  }
  for (uint32_t i = 0; is_read && i < wanted; ++i) {
    uint32_t index = 0;
    is_read = reader.Read(&index);
    run.wanted.push_back(index);
  }
  if (is_read && !reader.is_at_end()) is_read = ReadParts(&reader, &run);
  if (is_read && reader.is_at_end()) return run;
  return InvalidArgument("a batch that cannot be read");
}

std::string EncodeMemory(const ExportedMemory& memory) {
  std::string body(memory.handle().begin(), memory.handle().end());
  PutNumber(int32_t{memory.device()}, &body);
  PutNumber(memory.size_bytes(), &body);
  return body;
}

Result<WorkerMemoryHandle> DecodeMemory(std::span<const uint8_t> body) {
  BodyReader reader(body);
  WorkerMemoryHandle memory;
  std::string handle;
  if (!reader.ReadText(memory.handle.size(), &handle) || !reader.Read(&memory.device) ||
      !reader.Read(&memory.size) || !reader.is_at_end()) {
    return InvalidArgument("a client's memory that cannot be read");
  }
  std::copy(handle.begin(), handle.end(), memory.handle.begin());
  return memory;
}

void EncodeResult(const WorkerResult& result, std::string* body) {
  PutNumber(uint32_t{1}, body);
  PutNumber(static_cast<uint32_t>(result.code), body);
  const std::string_view text = std::string_view(result.text).substr(0, kMaxWorkerTextBytes);
  PutNumber(static_cast<uint32_t>(text.size()), body);
  PutNumber(static_cast<uint32_t>(result.outputs.size()), body);
  body->append(text);
  for (const WorkerOutput& output : result.outputs) {
    PutNumber(output.index, body);
    PutNumber(static_cast<uint32_t>(output.dtype), body);
    PutNumber(static_cast<uint32_t>(output.shape.rank()), body);
    PutNumber(output.offset, body);
    PutNumber(output.size, body);
    PutDims(output.shape, body);
  }
}

void EncodeRun(std::span<const WorkerInput> inputs, std::span<const size_t> wanted,
               std::span<const WorkerRequest> requests, std::string* body) {
  body->clear();
  PutNumber(static_cast<uint32_t>(inputs.size()), body);
  PutNumber(static_cast<uint32_t>(wanted.size()), body);
  PutNumber(static_cast<uint32_t>(requests.size()), body);
  for (const WorkerInput& input : inputs) PutInput(input, body);
  for (const size_t index : wanted) PutNumber(static_cast<uint32_t>(index), body);
  for (const WorkerRequest& request : requests) PutRequest(request, body);
}

void EncodeParts(std::span<const WorkerInputPart> inputs, std::span<const WorkerOutputPart> outputs,
                 std::string* body) {
  PutNumber(static_cast<uint32_t>(inputs.size()), body);
  PutNumber(static_cast<uint32_t>(outputs.size()), body);
  for (const WorkerInputPart& part : inputs) {
    PutNumber(part.input, body);
    PutNumber(part.slab, body);
    PutNumber(part.memory, body);
    PutNumber(part.offset, body);
    PutNumber(part.size, body);
  }
  for (const WorkerOutputPart& part : outputs) {
    PutNumber(part.wanted, body);
    PutNumber(part.first_row, body);
    PutNumber(part.rows, body);
    PutNumber(part.is_read_on_host ? 1U : 0U, body);
    PutNumber(part.memory, body);
    PutNumber(part.offset, body);
    PutNumber(part.size, body);
  }
}

Result<WorkerSignature> DecodeSignature(std::span<const uint8_t> body) {
  BodyReader reader(body);
  WorkerSignature signature;
  uint32_t flags = 0;
  uint32_t inputs = 0;
  uint32_t outputs = 0;
  if (!reader.Read(&flags) || !reader.Read(&signature.max_batch_size) ||
      signature.max_batch_size < -1 || !reader.Read(&inputs) || !reader.Read(&outputs) ||
      !ReadSpecs(&reader, inputs, &signature.inputs) ||
      !ReadSpecs(&reader, outputs, &signature.outputs) || !reader.is_at_end()) {
    return InvalidArgument("a signature that cannot be read");
  }
  signature.is_decoupled = (flags & kDecoupled) != 0;
  signature.answers_requests = (flags & kAnswersRequests) != 0;
  signature.batches_dynamically = (flags & kBatchesDynamically) != 0;
  return signature;
}

Result<std::vector<WorkerResult>> DecodeResults(std::span<const uint8_t> body, uint64_t slab_bytes,
                                                size_t expected_results,
                                                std::span<const size_t> unread) {
  BodyReader reader(body);
  uint32_t count = 0;
  if (!reader.Read(&count) || count != expected_results) {
    return InvalidArgument(StrCat("results for ", count, ", expected ", expected_results));
  }
  std::vector<WorkerResult> results(count);
  ResultBounds bounds{slab_bytes, slab_bytes, unread};
  for (WorkerResult& result : results) {
    if (!ReadResult(&reader, &bounds, &result)) {
      return InvalidArgument("a result that cannot be read");
    }
  }
  if (!reader.is_at_end()) return InvalidArgument("results with bytes behind them");
  return results;
}

}  // namespace penstock
