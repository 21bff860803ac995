// Writes requests as a client would, with protozero's writer: independent of the reader under test.

#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <protozero/pbf_writer.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace penstock {

inline std::span<const uint8_t> AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

inline std::string AsText(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The memory layout of some numbers.
template <typename T>
std::string Raw(std::initializer_list<T> values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  size_t offset = 0;
  for (const T value : values) {
    std::memcpy(bytes.data() + offset, &value, sizeof(T));
    offset += sizeof(T);
  }
  return bytes;
}

// One embedded message, built field by field: Message().String(1, "x").Packed(3, {1, 2}).
class Message {
 public:
  Message& String(uint32_t number, std::string_view text) {
    protozero::pbf_writer(data_).add_string(number, text.data(), text.size());
    return *this;
  }
  Message& Varint(uint32_t number, uint64_t value) {
    protozero::pbf_writer(data_).add_uint64(number, value);
    return *this;
  }
  Message& Double(uint32_t number, double value) {
    protozero::pbf_writer(data_).add_double(number, value);
    return *this;
  }
  Message& Float(uint32_t number, float value) {
    protozero::pbf_writer(data_).add_float(number, value);
    return *this;
  }
  Message& Packed(uint32_t number, const std::vector<int64_t>& values) {
    protozero::pbf_writer(data_).add_packed_int64(number, values.begin(), values.end());
    return *this;
  }
  Message& Sub(uint32_t number, const Message& message) { return String(number, message.data_); }
  // Appends bytes that are a field, or are meant to be none.
  Message& Bytes(std::string_view bytes) {
    data_.append(bytes);
    return *this;
  }

  const std::string& data() const { return data_; }

 private:
  std::string data_;
};

// A map entry of InferParameter: Parameter("priority", Message().Varint(5, 1)).
inline Message ParameterEntry(std::string_view key, const Message& value) {
  return Message().String(1, key).Sub(2, value);
}

inline Message Input(std::string_view name, std::string_view datatype,
                     const std::vector<int64_t>& shape) {
  return Message().String(1, name).String(2, datatype).Packed(3, shape);
}

// A request to model "m".
inline Message Request() { return Message().String(1, "m"); }

}  // namespace penstock
