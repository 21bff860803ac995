// FieldReader: walks the fields of one protobuf message that nobody has checked yet.
//
// Grammar:
//   message = field*
//   field   = key payload          key = varint(number << 3 | wire type)
//   payload = varint | 8 bytes | length(varint) bytes | 4 bytes      (wire types 0, 1, 2, 5)
//   varint  = at most 10 bytes, seven bits each, low bits first, high bit = "more follow"
//
// protozero's own reader is made for trusted input: it throws on a truncated message, asserts on an
// unexpected wire type and drops the upper half of a 64-bit length. This one answers instead.

#pragma once

#include <cstddef>
#include <cstdint>
#include <protozero/types.hpp>
#include <span>
#include <string_view>

namespace penstock {

using WireType = protozero::pbf_wire_type;

// Reads a varint at `*pos` and moves `*pos` behind it. Null, or what is wrong with it.
inline const char* ReadVarint(const uint8_t** pos, const uint8_t* end, uint64_t* value) {
  uint64_t result = 0;
  const uint8_t* p = *pos;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    if (p == end) return "it ends inside a number";
    const uint8_t byte = *p++;
    if (shift == 63 && byte > 1) break;
    result |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) {
      *pos = p;
      *value = result;
      return nullptr;
    }
  }
  return "a number is longer than 64 bits";
}

// One field as it lies on the wire.
struct Field {
  uint32_t number = 0;
  WireType type = WireType::unknown;
  uint64_t value = 0;              // varint only
  std::span<const uint8_t> bytes;  // payload of the three other types, without a length

  std::string_view text() const {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
};

// Threading: thread-compatible.
// Ownership: borrows the message; so do the fields.
// Lifecycle: Next() until it is false; then error() says whether the message ended well.
class FieldReader {
 public:
  explicit FieldReader(std::span<const uint8_t> message)
      : pos_(message.data()), end_(message.data() + message.size()) {}

  // Reads one field. False at the end of the message and at the first fault.
  bool Next(Field* field) {
    if (pos_ == end_ || error_ != nullptr) return false;
    error_ = Read(field);
    return error_ == nullptr;
  }

  // What is wrong with the message, or null: "a length runs past its end".
  const char* error() const { return error_; }
  // Behind the field that was read last.
  const uint8_t* position() const { return pos_; }

 private:
  const char* Read(Field* field) {
    uint64_t key = 0;
    if (const char* error = ReadVarint(&pos_, end_, &key)) return error;
    if (key > UINT32_MAX || key < 8) return "a field number is out of range";
    field->number = static_cast<uint32_t>(key >> 3);
    field->type = static_cast<WireType>(key & 7);
    switch (field->type) {
      case WireType::varint:
        return ReadVarint(&pos_, end_, &field->value);
      case WireType::fixed64:
        return Take(8, &field->bytes);
      case WireType::fixed32:
        return Take(4, &field->bytes);
      case WireType::length_delimited: {
        uint64_t length = 0;
        if (const char* error = ReadVarint(&pos_, end_, &length)) return error;
        return Take(length, &field->bytes);
      }
      default:
        return "a field has an unknown wire type";
    }
  }

  const char* Take(uint64_t length, std::span<const uint8_t>* bytes) {
    if (length > static_cast<size_t>(end_ - pos_)) return "a length runs past its end";
    *bytes = {pos_, static_cast<size_t>(length)};
    pos_ += length;
    return nullptr;
  }

  const uint8_t* pos_;
  const uint8_t* end_;
  const char* error_ = nullptr;
};

}  // namespace penstock
