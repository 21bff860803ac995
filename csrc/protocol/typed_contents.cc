#include "protocol/typed_contents.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <limits>
#include <type_traits>

#include "base/strcat.h"
#include "protocol/field_reader.h"

namespace penstock {
namespace {

constexpr uint32_t kContentsField = 5;  // of InferInputTensor

// Fields of InferTensorContents, by number.
constexpr std::array<std::string_view, 9> kFieldNames = {"",
                                                         "bool_contents",
                                                         "int_contents",
                                                         "int64_contents",
                                                         "uint_contents",
                                                         "uint64_contents",
                                                         "fp32_contents",
                                                         "fp64_contents",
                                                         "bytes_contents"};

constexpr uint32_t FieldOf(DataType dtype) {
  switch (dtype) {
    case DataType::kBool:
      return 1;
    case DataType::kInt8:
    case DataType::kInt16:
    case DataType::kInt32:
      return 2;
    case DataType::kInt64:
      return 3;
    case DataType::kUint8:
    case DataType::kUint16:
    case DataType::kUint32:
      return 4;
    case DataType::kUint64:
      return 5;
    case DataType::kFp32:
      return 6;
    case DataType::kFp64:
      return 7;
    case DataType::kBytes:
      return 8;
    case DataType::kInvalid:
    case DataType::kFp16:
    case DataType::kBf16:
      return 0;
  }
  return 0;
}

// How one element lies on the wire when it is not packed.
WireType ElementWireType(DataType dtype) {
  switch (dtype) {
    case DataType::kFp32:
      return WireType::fixed32;
    case DataType::kFp64:
      return WireType::fixed64;
    case DataType::kBytes:
      return WireType::length_delimited;
    default:
      return WireType::varint;
  }
}

Status Malformed(const char* what) { return InvalidArgument(StrCat("malformed contents: ", what)); }

// Calls visit(field) -> Status for every known field in every `contents` of `input`.
template <typename Visit>
Status ForEachContentsField(std::span<const uint8_t> input, const Visit& visit) {
  FieldReader input_reader(input);
  Field contents;
  while (input_reader.Next(&contents)) {
    if (contents.number != kContentsField) continue;
    FieldReader reader(contents.bytes);
    Field field;
    while (reader.Next(&field)) {
      if (field.number < kFieldNames.size()) PENSTOCK_RETURN_IF_ERROR(visit(field));
    }
    if (reader.error() != nullptr) return Malformed(reader.error());
  }
  if (input_reader.error() != nullptr) return Malformed(input_reader.error());
  return Status::Ok();
}

bool IsEmptyRun(const Field& field) {
  return field.type == WireType::length_delimited && field.bytes.empty() && field.number != 8;
}

// Every number in a run has exactly one byte without the "more follow" bit.
size_t CountVarints(std::span<const uint8_t> run) {
  return std::count_if(run.begin(), run.end(), [](uint8_t byte) { return byte < 0x80; });
}

// False when the 32 or 64 bits that protobuf keeps of `raw` are beyond T.
template <typename T>
bool Narrow(uint64_t raw, T* value) {
  if constexpr (std::is_same_v<T, bool>) {
    *value = raw != 0;
    return true;
  } else {
    // A varint of an int32 or uint32 field counts modulo 2^32; the smaller types are ours to check.
    using Wire = std::conditional_t<sizeof(T) == 8, T,
                                    std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>>;
    const auto wire = static_cast<Wire>(raw);
    *value = static_cast<T>(wire);
    return wire >= std::numeric_limits<T>::min() && wire <= std::numeric_limits<T>::max();
  }
}

template <typename T>
Status PutNumber(uint64_t raw, DataType dtype, uint8_t** out) {
  T value;
  if (!Narrow(raw, &value)) {
    return InvalidArgument(StrCat("a value in ", TypedContentsField(dtype), " is out of range for ",
                                  DataTypeName(dtype)));
  }
  std::memcpy(*out, &value, sizeof(T));
  *out += sizeof(T);
  return Status::Ok();
}

template <typename T>
Status PutNumbers(const Field& field, DataType dtype, uint8_t** out) {
  if (field.type == WireType::varint) return PutNumber<T>(field.value, dtype, out);
  const uint8_t* pos = field.bytes.data();
  const uint8_t* const end = pos + field.bytes.size();
  while (pos != end) {
    uint64_t raw = 0;
    if (const char* error = ReadVarint(&pos, end, &raw)) return Malformed(error);
    PENSTOCK_RETURN_IF_ERROR(PutNumber<T>(raw, dtype, out));
  }
  return Status::Ok();
}

Status PutRun(const Field& field, uint8_t** out) {
  if (!field.bytes.empty()) std::memcpy(*out, field.bytes.data(), field.bytes.size());
  *out += field.bytes.size();
  return Status::Ok();
}

Status PutBytesElement(const Field& field, uint8_t** out) {
  const auto length = static_cast<uint32_t>(field.bytes.size());
  std::memcpy(*out, &length, sizeof(length));
  *out += sizeof(length);
  return PutRun(field, out);
}

Status PutField(const Field& field, DataType dtype, uint8_t** out) {
  switch (dtype) {
    case DataType::kBool:
      return PutNumbers<bool>(field, dtype, out);
    case DataType::kInt8:
      return PutNumbers<int8_t>(field, dtype, out);
    case DataType::kInt16:
      return PutNumbers<int16_t>(field, dtype, out);
    case DataType::kInt32:
      return PutNumbers<int32_t>(field, dtype, out);
    case DataType::kInt64:
      return PutNumbers<int64_t>(field, dtype, out);
    case DataType::kUint8:
      return PutNumbers<uint8_t>(field, dtype, out);
    case DataType::kUint16:
      return PutNumbers<uint16_t>(field, dtype, out);
    case DataType::kUint32:
      return PutNumbers<uint32_t>(field, dtype, out);
    case DataType::kUint64:
      return PutNumbers<uint64_t>(field, dtype, out);
    case DataType::kBytes:
      return PutBytesElement(field, out);
    default:
      return PutRun(field, out);  // FP32, FP64: the wire's layout is memory's
  }
}

// Elements in one field that belongs to `dtype`.
Result<size_t> CountElements(const Field& field, DataType dtype) {
  if (field.type == ElementWireType(dtype)) return size_t{1};
  if (field.type != WireType::length_delimited) {
    return Malformed("a field of it has the wrong wire type");
  }
  const size_t size_bytes = DataTypeSize(dtype);
  if (ElementWireType(dtype) == WireType::varint) return CountVarints(field.bytes);
  if (field.bytes.size() % size_bytes != 0) return Malformed("a packed run ends inside an element");
  return field.bytes.size() / size_bytes;
}

}  // namespace

std::string_view TypedContentsField(DataType dtype) { return kFieldNames[FieldOf(dtype)]; }

Result<TypedContents> TypedContents::Measure(std::span<const uint8_t> input, DataType dtype) {
  TypedContents result(input, dtype);
  size_t num_fields = 0;
  std::span<const uint8_t> run;
  const auto measure = [&](const Field& field) -> Status {
    if (IsEmptyRun(field)) return Status::Ok();
    if (FieldOf(dtype) == 0) {
      return InvalidArgument(StrCat(DataTypeName(dtype), " has no typed contents and must be sent ",
                                    "in raw_input_contents"));
    }
    if (field.number != FieldOf(dtype)) {
      return InvalidArgument(StrCat("unexpected data in ", kFieldNames[field.number],
                                    ", the elements of ", DataTypeName(dtype), " belong in ",
                                    TypedContentsField(dtype)));
    }
    PENSTOCK_ASSIGN_OR_RETURN(const size_t count, CountElements(field, dtype));
    result.num_elements_ += count;
    if (dtype == DataType::kBytes) result.size_bytes_ += sizeof(uint32_t) + field.bytes.size();
    run = field.bytes;
    ++num_fields;
    return Status::Ok();
  };
  PENSTOCK_RETURN_IF_ERROR(ForEachContentsField(input, measure));
  if (dtype != DataType::kBytes) result.size_bytes_ = result.num_elements_ * DataTypeSize(dtype);
  const bool is_float = dtype == DataType::kFp32 || dtype == DataType::kFp64;
  if (is_float && num_fields == 1) result.in_place_ = run;
  return result;
}

Status TypedContents::Write(std::span<uint8_t> out) const {
  assert(out.size() == size_bytes_);
  uint8_t* pos = out.data();
  const auto put = [&](const Field& field) {
    return IsEmptyRun(field) ? Status::Ok() : PutField(field, dtype_, &pos);
  };
  PENSTOCK_RETURN_IF_ERROR(ForEachContentsField(input_, put));
  assert(pos == out.data() + out.size());
  return Status::Ok();
}

}  // namespace penstock
