#include "worker/messages.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>
#include <variant>

#include "base/strcat.h"
#include "base/utf8.h"

namespace penstock {
namespace {

constexpr uint32_t kDecoupled = 1;
constexpr uint32_t kAnswersRequests = 2;
constexpr uint32_t kBatchesDynamically = 4;
constexpr uint32_t kOptional = 1;
constexpr size_t kMaxNameBytes = 4096;

template <typename T>
void Put(T value, std::string* out) {
  static_assert(std::is_arithmetic_v<T>);
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void PutDims(const Shape& shape, std::string* out) {
  for (const int64_t dim : shape) Put(dim, out);
}

void PutInput(const WorkerInput& input, std::string* out) {
  Put(input.index, out);
  Put(static_cast<uint32_t>(input.dtype), out);
  Put(input.slab, out);
  Put(static_cast<uint32_t>(input.shape.rank()), out);
  Put(input.offset, out);
  Put(input.size, out);
  PutDims(input.shape, out);
}

void PutText(std::string_view text, std::string* out) {
  Put(static_cast<uint32_t>(text.size()), out);
  out->append(text);
}

struct PutValue {
  std::string* out;
  void operator()(bool value) const { Put(uint64_t{value}, out); }
  void operator()(std::string_view value) const { PutText(value, out); }
  template <typename T>
  void operator()(T value) const {
    Put(value, out);
  }
};

void PutRequest(const WorkerRequest& request, std::string* out) {
  Put(request.rows, out);
  Put(request.room, out);
  Put(request.timeout_us, out);
  Put(static_cast<uint32_t>(request.wanted.size()), out);
  Put(static_cast<uint32_t>(request.parameters.size()), out);
  Put(static_cast<uint32_t>(request.id.size()), out);
  for (const size_t index : request.wanted) Put(static_cast<uint32_t>(index), out);
  out->append(request.id);
  for (const Parameter& parameter : request.parameters) {
    Put(static_cast<uint32_t>(parameter.value.index()), out);
    PutText(parameter.key, out);
    std::visit(PutValue{out}, parameter.value);
  }
}

// Reads a body from its front; every read says whether there was that much.
class Reader {
 public:
  explicit Reader(std::span<const uint8_t> rest) : rest_(rest) {}

  template <typename T>
  bool Read(T* value) {
    if (rest_.size() < sizeof(T)) return false;
    std::memcpy(value, rest_.data(), sizeof(T));
    rest_ = rest_.subspan(sizeof(T));
    return true;
  }

  bool ReadDataType(DataType* dtype) {
    uint32_t number = 0;
    if (!Read(&number) || number == 0 || number > static_cast<uint32_t>(DataType::kBytes)) {
      return false;
    }
    *dtype = static_cast<DataType>(number);
    return true;
  }

  bool ReadDims(uint32_t rank, int64_t least, Shape* shape) {
    if (rank > kMaxRank) return false;
    for (uint32_t i = 0; i < rank; ++i) {
      int64_t dim = 0;
      if (!Read(&dim) || dim < least) return false;
      shape->Append(dim);
    }
    return true;
  }

  bool ReadText(size_t size, std::string* text) {
    if (rest_.size() < size) return false;
    text->assign(reinterpret_cast<const char*>(rest_.data()), size);
    rest_ = rest_.subspan(size);
    return true;
  }

  bool is_at_end() const { return rest_.empty(); }

 private:
  std::span<const uint8_t> rest_;
};

bool ReadSpec(Reader* reader, WorkerTensorSpec* spec) {
  uint32_t flags = 0;
  uint32_t rank = 0;
  uint32_t name_size = 0;
  if (!reader->ReadDataType(&spec->dtype) || !reader->Read(&flags) || !reader->Read(&rank) ||
      !reader->Read(&name_size) || name_size > kMaxNameBytes) {
    return false;
  }
  spec->is_optional = (flags & kOptional) != 0;
  return reader->ReadDims(rank, -1, &spec->dims) && reader->ReadText(name_size, &spec->name) &&
         IsValidUtf8(spec->name);
}

bool ReadSpecs(Reader* reader, uint32_t count, std::vector<WorkerTensorSpec>* specs) {
  if (count > kMaxWorkerTensors) return false;
  for (uint32_t i = 0; i < count; ++i) {
    if (!ReadSpec(reader, &specs->emplace_back())) return false;
  }
  return true;
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

bool ReadOutput(Reader* reader, uint64_t slab_bytes, WorkerOutput* output) {
  uint32_t rank = 0;
  return reader->Read(&output->index) && reader->ReadDataType(&output->dtype) &&
         reader->Read(&rank) && reader->Read(&output->offset) && reader->Read(&output->size) &&
         reader->ReadDims(rank, 0, &output->shape) && output->offset <= slab_bytes &&
         output->size <= slab_bytes - output->offset && HoldsItsShape(*output);
}

// `left_bytes`: of what outputs may take together, so that none lie on one another.
bool ReadResult(Reader* reader, uint64_t slab_bytes, uint64_t* left_bytes, WorkerResult* result) {
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
    if (!ReadOutput(reader, slab_bytes, &output) || output.size > *left_bytes) return false;
    *left_bytes -= output.size;
  }
  return true;
}

}  // namespace

void EncodeRun(std::span<const WorkerInput> inputs, std::span<const size_t> wanted,
               std::span<const WorkerRequest> requests, std::string* body) {
  body->clear();
  Put(static_cast<uint32_t>(inputs.size()), body);
  Put(static_cast<uint32_t>(wanted.size()), body);
  Put(static_cast<uint32_t>(requests.size()), body);
  for (const WorkerInput& input : inputs) PutInput(input, body);
  for (const size_t index : wanted) Put(static_cast<uint32_t>(index), body);
  for (const WorkerRequest& request : requests) PutRequest(request, body);
}

Result<WorkerSignature> DecodeSignature(std::span<const uint8_t> body) {
  Reader reader(body);
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
                                                size_t expected_results) {
  Reader reader(body);
  uint32_t count = 0;
  if (!reader.Read(&count) || count != expected_results) {
    return InvalidArgument(StrCat("results for ", count, ", expected ", expected_results));
  }
  std::vector<WorkerResult> results(count);
  uint64_t left_bytes = slab_bytes;
  for (WorkerResult& result : results) {
    if (!ReadResult(&reader, slab_bytes, &left_bytes, &result)) {
      return InvalidArgument("a result that cannot be read");
    }
  }
  if (!reader.is_at_end()) return InvalidArgument("results with bytes behind them");
  return results;
}

}  // namespace penstock
