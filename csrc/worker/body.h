// Bodies of packets, written and read: numbers as they lie in memory, little-endian and packed, and
// texts behind their length.

#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace penstock {

template <typename T>
void PutNumber(T value, std::string* out) {
  static_assert(std::is_arithmetic_v<T>);
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

inline void PutText(std::string_view text, std::string* out) {
  PutNumber(static_cast<uint32_t>(text.size()), out);
  out->append(text);
}

// Reads a body from its front; every read says whether there was that much.
class BodyReader {
 public:
  explicit BodyReader(std::span<const uint8_t> rest) : rest_(rest) {}

  template <typename T>
  bool Read(T* value) {
    static_assert(std::is_arithmetic_v<T>);
    if (rest_.size() < sizeof(T)) return false;
    std::memcpy(value, rest_.data(), sizeof(T));
    rest_ = rest_.subspan(sizeof(T));
    return true;
  }

  // Of `size` bytes.
  bool ReadText(size_t size, std::string* text) {
    if (rest_.size() < size) return false;
    text->assign(reinterpret_cast<const char*>(rest_.data()), size);
    rest_ = rest_.subspan(size);
    return true;
  }

  // As PutText wrote it.
  bool ReadText(std::string* text) {
    uint32_t size = 0;
    return Read(&size) && ReadText(size, text);
  }

  std::span<const uint8_t> rest() const { return rest_; }
  bool is_at_end() const { return rest_.empty(); }

 private:
  std::span<const uint8_t> rest_;
};

}  // namespace penstock
