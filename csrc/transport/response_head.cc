#include "transport/response_head.h"

#include <algorithm>
#include <utility>

#include "transport/grpc_text.h"

namespace penstock {
namespace {

// As sent: a client refuses trailers of more than 8 KiB, and loses the status with them.
constexpr size_t kMaxMessageBytes = 6144;

constexpr std::array<std::string_view, 17> kCodes = {
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"};

// The message as far as it fits, percent-encoded; not cut within a character.
std::string Clipped(std::string_view message) {
  std::string encoded = PercentEncode(message);
  if (encoded.size() <= kMaxMessageBytes) return encoded;
  size_t kept = kMaxMessageBytes / 3;
  while (kept > 0 && (static_cast<uint8_t>(message[kept]) & 0xC0) == 0x80) --kept;
  return PercentEncode(message.substr(0, kept)) + "...";
}

bool IsReserved(std::string_view name) {
  return name.empty() || name[0] == ':' || name.starts_with("grpc-status") ||
         name.starts_with("grpc-message") || name == "content-type" || name == "te";
}

}  // namespace

void ResponseHead::Add(std::string_view name, std::string_view value) {
  const auto bytes = [](std::string_view text) {
    return const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(text.data()));
  };
  const nghttp2_nv pair{bytes(name), bytes(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
  if (more_.empty() && size_ < few_.size()) {
    few_[size_++] = pair;
    return;
  }
  if (more_.empty()) more_.assign(few_.begin(), few_.end());
  more_.push_back(pair);
  size_ = more_.size();
}

void ResponseHead::AddResponse(bool takes_compression) {
  Add(":status", "200");
  Add("content-type", "application/grpc");
  Add("grpc-accept-encoding", takes_compression ? "identity, deflate, gzip" : "identity");
}

void ResponseHead::AddStatus(const Status& status) {
  const auto code = static_cast<size_t>(status.code());
  Add("grpc-status", kCodes[std::min(code, kCodes.size() - 1)]);
  if (status.ok()) return;
  if (!status.message().empty()) Add("grpc-message", Keep(Clipped(status.message())));
  if (status.retry_after_ms() >= 0) {
    Add("grpc-retry-pushback-ms", Keep(std::to_string(status.retry_after_ms())));
  }
}

void ResponseHead::AddMetadata(const Metadata& metadata) {
  for (const auto& [name, value] : metadata) {
    if (IsReserved(name)) continue;
    Add(name, name.ends_with("-bin") ? Keep(EncodeBinaryHeader(value)) : std::string_view(value));
  }
}

std::string_view ResponseHead::Keep(std::string text) {
  texts_.push_back(std::make_unique<std::string>(std::move(text)));
  return *texts_.back();
}

}  // namespace penstock
