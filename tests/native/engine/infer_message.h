// InferMessage: the bytes of a ModelInferRequest, written as a client would.

#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <protozero/pbf_writer.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace penstock {

// The memory layout of some numbers.
template <typename T>
std::string RawOf(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

// BYTES elements in wire layout.
inline std::string RawBytes(const std::vector<std::string>& elements) {
  std::string bytes;
  for (const std::string& element : elements) {
    bytes += RawOf<uint32_t>({static_cast<uint32_t>(element.size())}) + element;
  }
  return bytes;
}

class InferMessage {
 public:
  explicit InferMessage(std::string_view model = "m", std::string_view version = "") {
    Writer().add_string(1, model.data(), model.size());
    if (!version.empty()) Writer().add_string(2, version.data(), version.size());
  }

  InferMessage& Id(std::string_view id) {
    Writer().add_string(3, id.data(), id.size());
    return *this;
  }
  InferMessage& Input(std::string_view name, std::string_view datatype,
                      const std::vector<int64_t>& shape, std::string_view raw,
                      std::string_view parameter = "") {
    std::string input;
    protozero::pbf_writer writer(input);
    writer.add_string(1, name.data(), name.size());
    writer.add_string(2, datatype.data(), datatype.size());
    writer.add_packed_int64(3, shape.begin(), shape.end());
    if (!parameter.empty()) writer.add_message(4, Entry(parameter, 1, 1));
    Writer().add_message(5, input);
    if (parameter.empty()) raw_.emplace_back(raw);  // in shared memory there are no raw contents
    return *this;
  }
  // Where a tensor lies in shared memory; an empty region, and numbers left out, are not sent.
  struct Shared {
    std::string region = "r";
    std::optional<int64_t> byte_size = {};
    std::optional<int64_t> offset = {};
  };
  InferMessage& SharedInput(std::string_view name, std::string_view datatype,
                            const std::vector<int64_t>& shape, const Shared& shared) {
    std::string input;
    protozero::pbf_writer writer(input);
    writer.add_string(1, name.data(), name.size());
    writer.add_string(2, datatype.data(), datatype.size());
    writer.add_packed_int64(3, shape.begin(), shape.end());
    AddShared(4, shared, &writer);
    Writer().add_message(5, input);
    return *this;
  }
  InferMessage& SharedOutput(std::string_view name, const Shared& shared,
                             int64_t classification = 0) {
    std::string output;
    protozero::pbf_writer writer(output);
    writer.add_string(1, name.data(), name.size());
    AddShared(2, shared, &writer);
    if (classification > 0) {
      writer.add_message(2, Entry("classification", 2, static_cast<uint64_t>(classification)));
    }
    Writer().add_message(6, output);
    return *this;
  }
  // One FP32 row of `values`, the input "IN" of most tests.
  InferMessage& Row(const std::vector<float>& values) {
    return Input("IN", "FP32", {1, static_cast<int64_t>(values.size())}, RawOf(values));
  }
  InferMessage& Output(std::string_view name, const std::vector<int64_t>& classifications = {}) {
    std::string output;
    protozero::pbf_writer writer(output);
    writer.add_string(1, name.data(), name.size());
    for (const int64_t classes : classifications) {
      writer.add_message(2, Entry("classification", 2, static_cast<uint64_t>(classes)));
    }
    Writer().add_message(6, output);
    return *this;
  }
  // `kind`: the field number in InferParameter: 1 bool, 2 int64, 5 uint64.
  InferMessage& Parameter(std::string_view key, uint32_t kind, uint64_t value) {
    Writer().add_message(4, Entry(key, kind, value));
    return *this;
  }

  std::string bytes() const {
    std::string all = data_;
    for (const std::string& raw : raw_) protozero::pbf_writer(all).add_bytes(7, raw);
    return all;
  }

 private:
  static void AddShared(uint32_t field, const Shared& shared, protozero::pbf_writer* writer) {
    if (!shared.region.empty()) {
      std::string value;
      protozero::pbf_writer(value).add_string(3, shared.region);
      writer->add_message(field, EntryOf("shared_memory_region", value));
    }
    const auto add_number = [&](std::string_view key, std::optional<int64_t> number) {
      if (number) writer->add_message(field, Entry(key, 2, static_cast<uint64_t>(*number)));
    };
    add_number("shared_memory_byte_size", shared.byte_size);
    add_number("shared_memory_offset", shared.offset);
  }

  protozero::pbf_writer Writer() { return protozero::pbf_writer(data_); }
  static std::string Entry(std::string_view key, uint32_t kind, uint64_t value) {
    std::string number;
    protozero::pbf_writer(number).add_uint64(kind, value);
    return EntryOf(key, number);
  }
  static std::string EntryOf(std::string_view key, const std::string& value) {
    std::string entry;
    protozero::pbf_writer writer(entry);
    writer.add_string(1, key.data(), key.size());
    writer.add_message(2, value);
    return entry;
  }

  std::string data_;
  std::vector<std::string> raw_;
};

inline std::span<const uint8_t> SpanOf(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}
inline std::string TextOf(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace penstock
