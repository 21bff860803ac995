// Any bytes as each of the texts of gRPC over HTTP/2. The sanitizers judge the parsers; beyond that,
// what is encoded must be fit for a header and come back as it was.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "transport/compression.h"
#include "transport/grpc_text.h"

namespace penstock {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void RequireHeaderText(std::string_view text) {
  for (const char each : text) Require(each >= 0x20 && each <= 0x7E);
}

void TryTimeout(std::string_view text) {
  const std::optional<int64_t> timeout_ns = ParseGrpcTimeoutNs(text);
  if (!timeout_ns.has_value()) return;
  Require(*timeout_ns >= 0);
  Require(text.size() >= 2 && text.size() <= 9);
}

void TryPercent(std::string_view text) {
  Require(PercentDecode(text).size() <= text.size());
  const std::string encoded = PercentEncode(text);
  RequireHeaderText(encoded);
  Require(PercentDecode(encoded) == text);
}

void TryBinaryHeader(std::string_view text) {
  const std::string encoded = EncodeBinaryHeader(text);
  RequireHeaderText(encoded);
  Require(DecodeBinaryHeader(encoded) == text);
  Require(DecodeBinaryHeader(encoded + std::string((4 - encoded.size() % 4) % 4, '=')) == text);
  const std::optional<std::string> decoded = DecodeBinaryHeader(text);
  if (!decoded.has_value()) return;
  // One form only, but for the padding.
  Require(EncodeBinaryHeader(*decoded) == text.substr(0, text.find('=')));
}

void TryEncodings(std::string_view text) {
  const std::optional<Compression> named = CompressionFrom(text);
  Require(!named.has_value() || CompressionName(*named) == text);
  Require(CompressionName(ChooseCompression(text)) == "identity" ||
          text.find(CompressionName(ChooseCompression(text))) != std::string_view::npos);
}

}  // namespace
}  // namespace penstock

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;  // NOLINT: the entry's name is fixed, and so is its scope
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  TryTimeout(text);
  TryPercent(text);
  TryBinaryHeader(text);
  TryEncodings(text);
  return 0;
}
