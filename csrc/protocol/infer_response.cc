#include "protocol/infer_response.h"

#include <cassert>
#include <cstdint>
#include <cstring>
#include <protozero/types.hpp>
#include <protozero/varint.hpp>

namespace penstock {
namespace {

constexpr std::string_view kFinalResponseKey = "triton_final_response";
constexpr std::string_view kDigestKey = "penstock_digest";

// Of InferParameter.
constexpr uint32_t kStringParam = 3;

// Every field of these messages has a number below 16: its key is one byte.
constexpr size_t kKeyBytes = 1;

// Fields of ModelInferResponse.
constexpr uint32_t kRawContents = 6;

// Fields of ModelStreamInferResponse.
constexpr uint32_t kErrorMessage = 1;
constexpr uint32_t kInferResponse = 2;

size_t VarintSize(uint64_t value) {
  return static_cast<size_t>(protozero::length_of_varint(value));
}

size_t BytesFieldSize(size_t size) { return kKeyBytes + VarintSize(size) + size; }

// proto3 leaves out an empty string.
size_t StringFieldSize(std::string_view text) {
  return text.empty() ? 0 : BytesFieldSize(text.size());
}

size_t PackedShapeSize(const Shape& shape) {
  size_t size = 0;
  for (const int64_t dim : shape) size += VarintSize(static_cast<uint64_t>(dim));
  return size;
}

size_t OutputSize(const TensorView& output) {
  size_t size = StringFieldSize(output.name) + StringFieldSize(DataTypeName(output.dtype));
  if (!output.shape.empty()) size += BytesFieldSize(PackedShapeSize(output.shape));
  return size;
}

// InferParameter with bool_param; written even when false, as it is a member of a oneof.
constexpr size_t kBoolParameterSize = kKeyBytes + 1;

size_t FinalResponseEntrySize() {
  return StringFieldSize(kFinalResponseKey) + BytesFieldSize(kBoolParameterSize);
}

size_t DigestEntrySize(std::string_view digest) {
  return StringFieldSize(kDigestKey) + BytesFieldSize(BytesFieldSize(digest.size()));
}

// Size of the fields before the outputs.
size_t HeadSize(const InferResponseView& response) {
  size_t size = StringFieldSize(response.model_name) + StringFieldSize(response.model_version) +
                StringFieldSize(response.id);
  if (response.final_response) size += BytesFieldSize(FinalResponseEntrySize());
  if (!response.digest.empty()) size += BytesFieldSize(DigestEntrySize(response.digest));
  return size;
}

// Writes fields one behind the other. The caller has made the room by the size pass.
class Writer {
 public:
  explicit Writer(std::span<uint8_t> out) : pos_(out.data()), end_(out.data() + out.size()) {}
  ~Writer() { assert(pos_ == end_); }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  size_t left() const { return static_cast<size_t>(end_ - pos_); }

  void Varint(uint64_t value) {
    assert(static_cast<size_t>(end_ - pos_) >= VarintSize(value));
    pos_ += protozero::add_varint_to_buffer(reinterpret_cast<char*>(pos_), value);
  }

  // Key and length of a field; its `size` bytes are written next.
  void BytesHead(uint32_t number, size_t size) {
    Varint(protozero::tag_and_type(number, protozero::pbf_wire_type::length_delimited));
    Varint(size);
  }

  void Bytes(uint32_t number, const void* data, size_t size) {
    BytesHead(number, size);
    assert(static_cast<size_t>(end_ - pos_) >= size);
    if (size != 0) std::memcpy(pos_, data, size);
    pos_ += size;
  }

  void String(uint32_t number, std::string_view text) {
    if (!text.empty()) Bytes(number, text.data(), text.size());
  }

  void Bool(uint32_t number, bool value) {
    Varint(protozero::tag_and_type(number, protozero::pbf_wire_type::varint));
    Varint(value ? 1 : 0);
  }

 private:
  uint8_t* pos_;
  uint8_t* end_;
};

void WriteHead(const InferResponseView& response, Writer* writer) {
  writer->String(1, response.model_name);
  writer->String(2, response.model_version);
  writer->String(3, response.id);
  if (response.final_response) {
    writer->BytesHead(4, FinalResponseEntrySize());
    writer->String(1, kFinalResponseKey);
    writer->BytesHead(2, kBoolParameterSize);
    writer->Bool(1, *response.final_response);
  }
  if (!response.digest.empty()) {
    writer->BytesHead(4, DigestEntrySize(response.digest));
    writer->String(1, kDigestKey);
    writer->BytesHead(2, BytesFieldSize(response.digest.size()));
    writer->String(kStringParam, response.digest);
  }
}

void WriteOutput(const TensorView& output, Writer* writer) {
  writer->BytesHead(5, OutputSize(output));
  writer->String(1, output.name);
  writer->String(2, DataTypeName(output.dtype));
  if (output.shape.empty()) return;
  writer->BytesHead(3, PackedShapeSize(output.shape));
  for (const int64_t dim : output.shape) writer->Varint(static_cast<uint64_t>(dim));
}

void WriteResponse(const InferResponseView& response, Writer* writer) {
  WriteHead(response, writer);
  for (const TensorView& output : response.outputs) WriteOutput(output, writer);
  for (const TensorView& output : response.outputs) {
    writer->Bytes(kRawContents, output.data.data(), output.data.size());
  }
}

}  // namespace

size_t InferResponseSize(const InferResponseView& response) {
  size_t size = HeadSize(response);
  for (const TensorView& output : response.outputs) {
    size += BytesFieldSize(OutputSize(output)) + BytesFieldSize(output.data.size());
  }
  return size;
}

void EncodeInferResponse(const InferResponseView& response, std::span<uint8_t> out) {
  Writer writer(out);
  WriteResponse(response, &writer);
}

size_t StreamInferResponseSize(const InferResponseView& response) {
  return BytesFieldSize(InferResponseSize(response));
}

void EncodeStreamInferResponse(const InferResponseView& response, std::span<uint8_t> out) {
  Writer writer(out);
  writer.BytesHead(kInferResponse, InferResponseSize(response));
  WriteResponse(response, &writer);
}

size_t InferResponseFramingSize(const InferResponseView& response, bool is_stream) {
  size_t size = is_stream ? StreamInferResponseSize(response) : InferResponseSize(response);
  for (const TensorView& output : response.outputs) size -= output.data.size();
  return size;
}

void EncodeInferResponseFraming(const InferResponseView& response, bool is_stream,
                                std::span<uint8_t> out, std::vector<size_t>* cuts) {
  Writer writer(out);
  cuts->clear();
  if (is_stream) writer.BytesHead(kInferResponse, InferResponseSize(response));
  WriteHead(response, &writer);
  for (const TensorView& output : response.outputs) WriteOutput(output, &writer);
  for (const TensorView& output : response.outputs) {
    writer.BytesHead(kRawContents, output.data.size());
    cuts->push_back(out.size() - writer.left());
  }
}

size_t StreamInferErrorSize(std::string_view error_message, const InferResponseView& response) {
  return StringFieldSize(error_message) + BytesFieldSize(HeadSize(response));
}

void EncodeStreamInferError(std::string_view error_message, const InferResponseView& response,
                            std::span<uint8_t> out) {
  Writer writer(out);
  writer.String(kErrorMessage, error_message);
  writer.BytesHead(kInferResponse, HeadSize(response));
  WriteHead(response, &writer);
}

}  // namespace penstock
