#include "transport/request_head.h"

#include "base/strcat.h"
#include "transport/grpc_text.h"

namespace penstock {
namespace {

constexpr std::string_view kInferPath = "/inference.GRPCInferenceService/ModelInfer";
constexpr std::string_view kStreamInferPath = "/inference.GRPCInferenceService/ModelStreamInfer";
constexpr std::string_view kContentType = "application/grpc";
constexpr size_t kHeaderOverhead = 32;  // RFC 9113, SETTINGS_MAX_HEADER_LIST_SIZE

bool IsGrpc(std::string_view content_type) {
  if (!content_type.starts_with(kContentType)) return false;
  const std::string_view rest = content_type.substr(kContentType.size());
  return rest.empty() || rest[0] == '+' || rest[0] == ';';
}

}  // namespace

void RequestHead::Begin(int32_t stream_id) {
  stream_id_ = stream_id;
  path_.clear();
  is_post_ = is_grpc_ = is_infer_ = is_stream_infer_ = ends_at_error_ = false;
  size_bytes_ = 0;
  timeout_ns_ = kNever;
  encoding_ = accepted_ = Compression::kIdentity;
  if (!fault_.ok()) fault_ = Status();
  metadata_.clear();
}

void RequestHead::Add(std::string_view name, std::string_view value, bool keeps_all,
                      size_t max_bytes) {
  size_bytes_ += name.size() + value.size() + kHeaderOverhead;
  if (name.empty() || size_bytes_ > max_bytes) return;
  if (name[0] == ':') {
    if (name == ":path") AddPath(value);
    if (name == ":method") is_post_ = value == "POST";
    return;
  }
  if (name == "content-type") {
    is_grpc_ = IsGrpc(value);
    return;
  }
  if (name == "te") return;
  if (name.starts_with("grpc-")) {
    AddReserved(name, value);
    return;
  }
  if (is_stream_infer_ && name == "triton_grpc_error") ends_at_error_ = value == "true";
  if (keeps_all || !(is_infer_ || is_stream_infer_)) metadata_.emplace_back(name, value);
}

void RequestHead::AddPath(std::string_view value) {
  path_ = value;
  is_infer_ = value == kInferPath;
  is_stream_infer_ = value == kStreamInferPath;
}

void RequestHead::AddReserved(std::string_view name, std::string_view value) {
  if (name == "grpc-timeout") {
    const auto timeout_ns = ParseGrpcTimeoutNs(value);
    if (timeout_ns.has_value()) {
      timeout_ns_ = *timeout_ns;
    } else if (fault_.ok()) {
      fault_ = Internal(StrCat("the header 'grpc-timeout' is '", PercentEncode(value),
                               "', expected digits and one of H, M, S, m, u, n"));
    }
  } else if (name == "grpc-encoding") {
    const auto encoding = CompressionFrom(value);
    if (encoding.has_value()) {
      encoding_ = *encoding;
    } else if (fault_.ok()) {
      fault_ = Unimplemented(StrCat("messages compressed by '", PercentEncode(value),
                                    "' are not supported, expected identity, deflate or gzip"));
    }
  } else if (name == "grpc-accept-encoding") {
    accepted_ = ChooseCompression(value);
  }
}

}  // namespace penstock
