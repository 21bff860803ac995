// What a connection sends as headers and trailers.

#include "transport/connection.h"
#include "transport/connection_callbacks.h"
#include "transport/io_thread.h"
#include "transport/response_head.h"

namespace penstock {

// What is no gRPC is answered as HTTP has it.
void Connection::AnswerHttp(const char* status) {
  ResponseHead head;
  head.Add(":status", status);
  head.Add("content-type", "text/plain");
  nghttp2_submit_response(session_, head_.stream_id(), head.data(), head.size(), nullptr);
}

void Connection::SubmitHeaders(Call* call, Compression compression, const Metadata& metadata) {
  ResponseHead head;
  head.AddResponse(io_.options().compression);
  if (compression != Compression::kIdentity) {
    head.Add("grpc-encoding", CompressionName(compression));
  }
  head.AddMetadata(metadata);
  nghttp2_data_provider provider;
  provider.source.ptr = call;
  provider.read_callback = &Callbacks::OnPlan;
  nghttp2_submit_response(session_, call->stream_id(), head.data(), head.size(), &provider);
  io_.MarkDirty(this);
}

void Connection::SubmitTrailersOnly(int32_t stream_id, const Status& status,
                                    const Metadata& metadata) {
  ResponseHead head;
  head.AddResponse(io_.options().compression);
  head.AddStatus(status);
  head.AddMetadata(metadata);
  nghttp2_submit_response(session_, stream_id, head.data(), head.size(), nullptr);
  io_.MarkDirty(this);
}

void Connection::SubmitTrailers(int32_t stream_id, const Status& status, const Metadata& metadata) {
  ResponseHead head;
  head.AddStatus(status);
  head.AddMetadata(metadata);
  nghttp2_submit_trailer(session_, stream_id, head.data(), head.size());
}

}  // namespace penstock
