// DataType: the tensor element types of the Open Inference protocol.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace penstock {

enum class DataType : uint8_t {
  kInvalid = 0,  // "no such type": what ParseDataType answers for an unknown name
  kBool,
  kUint8,
  kUint16,
  kUint32,
  kUint64,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kFp16,
  kBf16,
  kFp32,
  kFp64,
  kBytes,  // each element on the wire: 4-byte little-endian length, then that many bytes
};

// The protocol's name: "BOOL", "UINT8", ..., "BYTES"; "INVALID" for kInvalid.
std::string_view DataTypeName(DataType dtype);

// The type with that protocol name, or kInvalid.
DataType ParseDataType(std::string_view name);

// Bytes per element; 0 for kBytes (variable) and kInvalid.
size_t DataTypeSize(DataType dtype);

}  // namespace penstock
