// Messages: gRPC's framing, and the little that the load client knows of inference messages.
//
//   gRPC message  = flag(1 byte: compressed?) length(4 bytes, big endian) bytes
//   id of an inference request or response = field 3, a string; of a protobuf message's repeated
//   fields the last one counts, so an id is set by writing one behind the message.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock::load {

inline constexpr size_t kPrefixBytes = 5;
inline constexpr uint32_t kIdField = 3;  // of ModelInferRequest and ModelInferResponse

std::array<uint8_t, kPrefixBytes> GrpcPrefix(size_t message_bytes);

// Cuts what a stream brings into messages.
// Threading: thread-compatible. Ownership: owns what has come and was not yet taken.
class MessageCutter {
 public:
  void Append(const uint8_t* data, size_t size);
  // The next whole message, valid until the next call of Append or Clear. None: more must come, or
  // fault() says what is wrong.
  std::optional<std::string_view> Next();
  const char* fault() const { return fault_; }
  bool is_empty() const { return taken_ == bytes_.size(); }
  void Clear();

 private:
  std::string bytes_;
  size_t taken_ = 0;
  const char* fault_ = nullptr;
};

// A field as it lies in its message: [begin, end) with key and length, `payload` without.
struct FieldSpan {
  size_t begin = 0;
  size_t end = 0;
  std::string_view payload;
};

// The last length-delimited field of that number; none if there is none, or if the bytes are no
// protobuf message.
std::optional<FieldSpan> FindField(std::string_view message, uint32_t number);

// An id field, to be written behind a message.
std::string IdField(std::string_view id);

}  // namespace penstock::load
