// RequestHead: what the header block of a call says.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "transport/compression.h"

namespace penstock {

using Metadata = std::vector<std::pair<std::string, std::string>>;

// Filled header by header; used again for the next block, with its capacity.
// Threading: confined to its I/O thread.
class RequestHead {
 public:
  // Forgets the block before.
  void Begin(int32_t stream_id);
  // One header, name in lower case. `keeps_all`: metadata of inference is of use (somebody asks who
  // calls); that of other calls always is. Beyond `max_bytes` only the size is counted.
  void Add(std::string_view name, std::string_view value, bool keeps_all, size_t max_bytes);

  int32_t stream_id() const { return stream_id_; }
  const std::string& path() const { return path_; }
  bool is_post() const { return is_post_; }
  bool is_grpc() const { return is_grpc_; }  // the content type
  bool is_infer() const { return is_infer_; }
  bool is_stream_infer() const { return is_stream_infer_; }
  // Names and values with HTTP/2's 32 bytes for each.
  size_t size_bytes() const { return size_bytes_; }
  int64_t timeout_ns() const { return timeout_ns_; }  // kNever: none
  Compression encoding() const { return encoding_; }  // of the request's messages
  Compression accepted() const { return accepted_; }  // of the answer's
  bool ends_at_error() const { return ends_at_error_; }
  // What cannot be used: a malformed timeout, an unknown encoding.
  const Status& fault() const { return fault_; }
  // As sent: values of names that end in "-bin" are still base64.
  const Metadata& metadata() const { return metadata_; }

 private:
  void AddReserved(std::string_view name, std::string_view value);
  void AddPath(std::string_view value);

  int32_t stream_id_ = 0;
  std::string path_;
  bool is_post_ = false;
  bool is_grpc_ = false;
  bool is_infer_ = false;
  bool is_stream_infer_ = false;
  size_t size_bytes_ = 0;
  int64_t timeout_ns_ = kNever;
  Compression encoding_ = Compression::kIdentity;
  Compression accepted_ = Compression::kIdentity;
  bool ends_at_error_ = false;
  Status fault_;
  Metadata metadata_;
};

}  // namespace penstock
