#include "load/message.h"

#include <algorithm>

#include "protocol/field_reader.h"

namespace penstock::load {
namespace {

constexpr size_t kMostReserved = 16 << 20;  // of a message that is only foretold

uint32_t BigEndian(const char* bytes) {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return value;
}

}  // namespace

std::array<uint8_t, kPrefixBytes> GrpcPrefix(size_t message_bytes) {
  const auto size = static_cast<uint32_t>(message_bytes);
  return {0, static_cast<uint8_t>(size >> 24), static_cast<uint8_t>(size >> 16),
          static_cast<uint8_t>(size >> 8), static_cast<uint8_t>(size)};
}

void MessageCutter::Append(const uint8_t* data, size_t size) {
  if (taken_ * 2 >= bytes_.size()) {
    bytes_.erase(0, taken_);
    taken_ = 0;
  }
  bytes_.append(reinterpret_cast<const char*>(data), size);
  const size_t left = bytes_.size() - taken_;
  if (left < kPrefixBytes) return;
  const size_t foretold = BigEndian(bytes_.data() + taken_ + 1);
  bytes_.reserve(taken_ + kPrefixBytes + std::min(foretold, kMostReserved));
}

std::optional<std::string_view> MessageCutter::Next() {
  const std::string_view left = std::string_view(bytes_).substr(taken_);
  if (left.size() < kPrefixBytes || fault_ != nullptr) return std::nullopt;
  if (left[0] != 0) {
    fault_ = "a message is compressed, which was not asked for";
    return std::nullopt;
  }
  const size_t size = BigEndian(left.data() + 1);
  if (left.size() < kPrefixBytes + size) return std::nullopt;
  taken_ += kPrefixBytes + size;
  return left.substr(kPrefixBytes, size);
}

void MessageCutter::Clear() {
  bytes_.clear();
  taken_ = 0;
  fault_ = nullptr;
}

std::optional<FieldSpan> FindField(std::string_view message, uint32_t number) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(message.data());
  FieldReader reader({bytes, message.size()});
  std::optional<FieldSpan> found;
  size_t begin = 0;
  Field field;
  while (reader.Next(&field)) {
    const size_t end = reader.position() - bytes;
    if (field.number == number && field.type == WireType::length_delimited) {
      found = FieldSpan{begin, end, field.text()};
    }
    begin = end;
  }
  if (reader.error() != nullptr) return std::nullopt;
  return found;
}

std::string IdField(std::string_view id) {
  std::string field(1, static_cast<char>(kIdField << 3 | 2));
  for (size_t size = id.size(); true; size >>= 7) {
    field.push_back(static_cast<char>(size < 0x80 ? size : (size & 0x7F) | 0x80));
    if (size < 0x80) break;
  }
  return field.append(id);
}

}  // namespace penstock::load
