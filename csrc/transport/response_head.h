// ResponseHead: the headers and trailers of a response, as nghttp2 wants them.

#pragma once

#include <nghttp2/nghttp2.h>

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "transport/request_head.h"

namespace penstock {

// Threading: thread-compatible.
// Ownership: borrows names and values that are given as views of constants or of metadata, owns
// what it makes; both until it has been submitted, which copies.
// Cost: an ordinary response is made without an allocation.
class ResponseHead {
 public:
  void Add(std::string_view name, std::string_view value);
  // Status 200, the content type, and what compression is taken.
  void AddResponse(bool takes_compression);
  // grpc-status, and where it is a failure grpc-message and when to try again (gRPC's proposal A6).
  void AddStatus(const Status& status);
  // Values of names that end in "-bin" are encoded; names that are reserved are left out.
  void AddMetadata(const Metadata& metadata);

  const nghttp2_nv* data() const { return more_.empty() ? few_.data() : more_.data(); }
  size_t size() const { return size_; }

 private:
  std::string_view Keep(std::string text);

  std::array<nghttp2_nv, 8> few_;
  std::vector<nghttp2_nv> more_;  // all of them, once they are many
  size_t size_ = 0;
  std::vector<std::unique_ptr<std::string>> texts_;
};

}  // namespace penstock
