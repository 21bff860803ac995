#include "transport/grpc_text.h"

#include <array>
#include <cstddef>
#include <limits>

#include "base/clock.h"

namespace penstock {
namespace {

constexpr size_t kMaxTimeoutDigits = 8;
constexpr std::string_view kHexDigits = "0123456789ABCDEF";
constexpr std::string_view kBase64Digits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr uint8_t kNoDigit = 0xFF;

constexpr std::array<uint8_t, 256> InverseOf(std::string_view digits) {
  std::array<uint8_t, 256> inverse{};
  for (uint8_t& each : inverse) each = kNoDigit;
  for (size_t i = 0; i < digits.size(); ++i) {
    inverse[static_cast<uint8_t>(digits[i])] = static_cast<uint8_t>(i);
  }
  return inverse;
}

constexpr std::array<uint8_t, 256> kBase64Values = InverseOf(kBase64Digits);

// Nanoseconds in a unit of grpc-timeout; 0: no such unit.
int64_t UnitNs(char unit) {
  switch (unit) {
    case 'H':
      return 3600 * kNsPerS;
    case 'M':
      return 60 * kNsPerS;
    case 'S':
      return kNsPerS;
    case 'm':
      return kNsPerMs;
    case 'u':
      return 1'000;
    case 'n':
      return 1;
    default:
      return 0;
  }
}

// kNoDigit: none.
uint8_t HexValue(char digit) {
  if (digit >= '0' && digit <= '9') return static_cast<uint8_t>(digit - '0');
  if (digit >= 'A' && digit <= 'F') return static_cast<uint8_t>(digit - 'A' + 10);
  if (digit >= 'a' && digit <= 'f') return static_cast<uint8_t>(digit - 'a' + 10);
  return kNoDigit;
}

bool PassesUnescaped(uint8_t byte) { return byte >= 0x20 && byte <= 0x7E && byte != '%'; }

}  // namespace

std::optional<int64_t> ParseGrpcTimeoutNs(std::string_view text) {
  if (text.size() < 2 || text.size() > kMaxTimeoutDigits + 1) return std::nullopt;
  int64_t count = 0;
  for (const char digit : text.substr(0, text.size() - 1)) {
    if (digit < '0' || digit > '9') return std::nullopt;
    count = 10 * count + (digit - '0');
  }
  const int64_t unit_ns = UnitNs(text.back());
  if (unit_ns == 0) return std::nullopt;
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  return count > kMax / unit_ns ? kMax : count * unit_ns;
}

std::string PercentEncode(std::string_view message) {
  std::string text;
  text.reserve(message.size());
  for (const char each : message) {
    const auto byte = static_cast<uint8_t>(each);
    if (PassesUnescaped(byte)) {
      text.push_back(each);
    } else {
      text.append({'%', kHexDigits[byte >> 4U], kHexDigits[byte & 0xFU]});
    }
  }
  return text;
}

std::string PercentDecode(std::string_view text) {
  std::string message;
  message.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && text.size() - i > 2) {
      const uint8_t high = HexValue(text[i + 1]);
      const uint8_t low = HexValue(text[i + 2]);
      if (high != kNoDigit && low != kNoDigit) {
        message.push_back(static_cast<char>(high << 4U | low));
        i += 2;
        continue;
      }
    }
    message.push_back(text[i]);
  }
  return message;
}

std::optional<std::string> DecodeBinaryHeader(std::string_view text) {
  while (text.ends_with('=')) text.remove_suffix(1);
  if (text.size() % 4 == 1) return std::nullopt;  // six bits are no byte
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3 + 2);
  uint32_t bits = 0;
  unsigned held = 0;  // how many of the low bits of `bits` are not written yet
  for (const char digit : text) {
    const uint8_t value = kBase64Values[static_cast<uint8_t>(digit)];
    if (value == kNoDigit) return std::nullopt;
    bits = (bits << 6U) | value;
    held += 6;
    if (held < 8) continue;
    held -= 8;
    bytes.push_back(static_cast<char>(bits >> held & 0xFFU));
  }
  if ((bits & ((1U << held) - 1)) != 0) return std::nullopt;
  return bytes;
}

std::string EncodeBinaryHeader(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() * 4 + 2) / 3);
  uint32_t bits = 0;
  unsigned held = 0;
  for (const char byte : bytes) {
    bits = (bits << 8U) | static_cast<uint8_t>(byte);
    held += 8;
    while (held >= 6) {
      held -= 6;
      text.push_back(kBase64Digits[bits >> held & 0x3FU]);
    }
  }
  if (held > 0) text.push_back(kBase64Digits[bits << (6 - held) & 0x3FU]);
  return text;
}

}  // namespace penstock
