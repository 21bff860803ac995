#include "base/utf8.h"

#include <cstdint>
#include <cstring>

namespace penstock {
namespace {

constexpr uint64_t kHighBits = 0x8080808080808080;

bool IsContinuation(uint8_t byte) { return (byte & 0xC0) == 0x80; }

// Length of the well-formed multi-byte character at `p`, or 0. The bounds of the second byte are
// what rules out overlong forms (E0, F0), surrogates (ED) and what lies beyond U+10FFFF (F4).
size_t MultiByteLength(const uint8_t* p, const uint8_t* end) {
  const uint8_t lead = p[0];
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || static_cast<size_t>(end - p) < length) return 0;
  const uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  if (p[1] < low || p[1] > high) return 0;
  for (size_t i = 2; i < length; ++i) {
    if (!IsContinuation(p[i])) return 0;
  }
  return length;
}

}  // namespace

bool IsValidUtf8(std::string_view text) {
  const auto* p = reinterpret_cast<const uint8_t*>(text.data());
  const uint8_t* const end = p + text.size();
  while (p != end) {
    uint64_t word = kHighBits;
    if (end - p >= 8) std::memcpy(&word, p, 8);
    if ((word & kHighBits) == 0) {
      p += 8;
    } else if (*p < 0x80) {
      ++p;
    } else {
      const size_t length = MultiByteLength(p, end);
      if (length == 0) return false;
      p += length;
    }
  }
  return true;
}

size_t CharacterLength(std::string_view text) {
  const auto* p = reinterpret_cast<const uint8_t*>(text.data());
  return *p < 0x80 ? 1 : MultiByteLength(p, p + text.size());
}

std::string ReplaceInvalidUtf8(std::string_view text) {
  std::string valid;
  const auto* p = reinterpret_cast<const uint8_t*>(text.data());
  const uint8_t* const end = p + text.size();
  while (p != end) {
    const size_t length = *p < 0x80 ? 1 : MultiByteLength(p, end);
    valid +=
        length > 0 ? std::string_view(reinterpret_cast<const char*>(p), length) : "\xEF\xBF\xBD";
    p += length > 0 ? length : 1;
  }
  return valid;
}

std::string Quoted(std::string_view text, size_t max_bytes) {
  std::string quoted = "'";
  if (text.size() <= max_bytes) return quoted.append(text).append("'");
  size_t cut = max_bytes;
  while (cut > 0 && IsContinuation(static_cast<uint8_t>(text[cut]))) --cut;
  return quoted.append(text.substr(0, cut)).append("...'");
}

}  // namespace penstock
