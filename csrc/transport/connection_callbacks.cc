#include "transport/connection_callbacks.h"

#include <algorithm>
#include <array>
#include <exception>
#include <new>

#include "base/log.h"
#include "base/strcat.h"
#include "transport/io_thread.h"

namespace penstock {
namespace {

// Clients of gRPC cancel by RST_STREAM, and all at once when their deadlines pass.
constexpr uint64_t kResetBurst = 10'000;
constexpr uint64_t kResetsPerSecond = 1'000;

// Tells the ping of a drain from those that keep a connection alive, which carry zeros.
constexpr std::array<uint8_t, 8> kDrainPing = {'d', 'r', 'a', 'i', 'n'};

}  // namespace

template <typename Body>
int Connection::Callbacks::Guard(Body body) noexcept {
  try {
    return body();
  } catch (const std::exception& error) {
    Log(LogLevel::kError, "transport", StrCat("a connection is given up: ", error.what()));
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  }
}

int Connection::Callbacks::OnBeginHeaders(nghttp2_session*, const nghttp2_frame* frame,
                                          void* user) {
  Connection& self = Self(user);
  self.is_request_head_ = frame->headers.cat == NGHTTP2_HCAT_REQUEST;
  if (self.is_request_head_) self.head_.Begin(frame->hd.stream_id);
  return 0;
}

// NOLINTNEXTLINE(readability-function-size): nghttp2's signature
int Connection::Callbacks::OnHeader(nghttp2_session*, const nghttp2_frame*, const uint8_t* name,
                                    size_t name_size, const uint8_t* value, size_t value_size,
                                    uint8_t, void* user) {
  return Guard([&] {
    Connection& self = Self(user);
    if (!self.is_request_head_) return 0;
    RequestHead& head = self.head_;
    head.Add({reinterpret_cast<const char*>(name), name_size},
             {reinterpret_cast<const char*>(value), value_size}, self.io_.keeps_metadata(),
             self.io_.options().max_header_bytes);
    return 0;
  });
}

int Connection::Callbacks::OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* user) {
  return Guard([&] {
    Connection& self = Self(user);
    self.has_begun_ = true;
    const bool ends = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    switch (frame->hd.type) {
      case NGHTTP2_HEADERS:
        if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) self.BeginCall();
        break;
      case NGHTTP2_DATA:
        break;
      case NGHTTP2_PING:
        if ((frame->hd.flags & NGHTTP2_FLAG_ACK) != 0) {
          self.OnPingAck(frame->ping.opaque_data[0] == kDrainPing[0]);
        } else {
          self.CheckPing();
        }
        return 0;
      default:
        return 0;
    }
    Call* const call = ends ? self.FindCall(frame->hd.stream_id) : nullptr;
    if (call != nullptr) call->OnHalfClosed();
    return 0;
  });
}

// NOLINTNEXTLINE(readability-function-size): nghttp2's signature
int Connection::Callbacks::OnData(nghttp2_session* session, uint8_t, int32_t stream_id,
                                  const uint8_t* data, size_t size, void* user) {
  return Guard([&] {
    Call* const call = Self(user).FindCall(stream_id);
    if (call == nullptr) return nghttp2_session_consume(session, stream_id, size);
    call->OnData({data, size});
    return nghttp2_session_consume_connection(session, size);
  });
}

int Connection::Callbacks::OnStreamClose(nghttp2_session*, int32_t stream_id, uint32_t,
                                         void* user) {
  return Guard([&] {
    Connection& self = Self(user);
    Call* const call = self.FindCall(stream_id);
    if (call == nullptr) return 0;
    self.Unlink(call);
    call->OnStreamClosed(CallEnd::kCancelled);
    call->Unref();
    return 0;
  });
}

int Connection::Callbacks::OnFrameSent(nghttp2_session* session, const nghttp2_frame* frame,
                                       void* user) {
  if (frame->hd.type == NGHTTP2_GOAWAY && Self(user).is_draining_ && !Self(user).has_said_goaway_) {
    return nghttp2_submit_ping(session, NGHTTP2_FLAG_NONE, kDrainPing.data());
  }
  if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
  Self(user).ping_strikes_ = 0;
  if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
  const int32_t stream_id = frame->hd.stream_id;
  if (nghttp2_session_get_stream_remote_close(session, stream_id) != 0) return 0;
  return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream_id, NGHTTP2_NO_ERROR);
}

int Connection::Callbacks::OnFrameNotSent(nghttp2_session* session, const nghttp2_frame* frame,
                                          int error, void*) {
  // What goes with its stream or its connection is the client's own doing.
  const bool is_gone = error == NGHTTP2_ERR_STREAM_CLOSED || error == NGHTTP2_ERR_STREAM_CLOSING ||
                       error == NGHTTP2_ERR_SESSION_CLOSING;
  if (frame->hd.type != NGHTTP2_HEADERS || is_gone) return 0;
  Log(LogLevel::kError, "transport",
      StrCat("headers of a response cannot be sent: ", nghttp2_strerror(error)));
  return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                   NGHTTP2_INTERNAL_ERROR);
}

// NOLINTNEXTLINE(readability-function-size): nghttp2's signature
ssize_t Connection::Callbacks::OnPlan(nghttp2_session*, int32_t, uint8_t*, size_t length,
                                      uint32_t* flags, nghttp2_data_source* source, void*) {
  ssize_t planned = 0;
  const int guarded = Guard([&] {
    planned = static_cast<Call*>(source->ptr)->PlanFrame(length, flags);
    return 0;
  });
  return guarded == 0 ? planned : guarded;
}

// NOLINTNEXTLINE(readability-function-size): nghttp2's signature
int Connection::Callbacks::OnSendData(nghttp2_session*, nghttp2_frame* frame, const uint8_t* head,
                                      size_t size, nghttp2_data_source* source, void* user) {
  return Guard([&] {
    Connection& self = Self(user);
    auto& call = *static_cast<Call*>(source->ptr);
    self.out_.Append({head, 9});
    if (frame->data.padlen != 0) return int{NGHTTP2_ERR_CALLBACK_FAILURE};  // we ask for none
    if (call.TakeFrame(size, &self.out_)) {
      call.Ref();
      self.sent_.push_back(&call);
    }
    return 0;
  });
}

// NOLINTNEXTLINE(readability-function-size): nghttp2's signature
ssize_t Connection::Callbacks::MaxFrame(nghttp2_session*, uint8_t, int32_t, int32_t session_window,
                                        int32_t stream_window, uint32_t max_frame, void*) {
  return static_cast<ssize_t>(std::min({static_cast<size_t>(std::max(session_window, 0)),
                                        static_cast<size_t>(std::max(stream_window, 0)),
                                        size_t{max_frame}, kMaxHttp2FrameBytes}));
}

nghttp2_session_callbacks* Connection::Callbacks::Table() {
  static nghttp2_session_callbacks* const table = [] {
    nghttp2_session_callbacks* made = nullptr;
    if (nghttp2_session_callbacks_new(&made) != 0) throw std::bad_alloc();
    nghttp2_session_callbacks_set_on_begin_headers_callback(made, &OnBeginHeaders);
    nghttp2_session_callbacks_set_on_header_callback(made, &OnHeader);
    nghttp2_session_callbacks_set_on_frame_recv_callback(made, &OnFrame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made, &OnData);
    nghttp2_session_callbacks_set_on_stream_close_callback(made, &OnStreamClose);
    nghttp2_session_callbacks_set_on_frame_send_callback(made, &OnFrameSent);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(made, &OnFrameNotSent);
    nghttp2_session_callbacks_set_send_data_callback(made, &OnSendData);
    nghttp2_session_callbacks_set_data_source_read_length_callback(made, &MaxFrame);
    return made;
  }();
  return table;
}

nghttp2_option* Connection::Callbacks::Options() {
  static nghttp2_option* const options = [] {
    nghttp2_option* made = nullptr;
    if (nghttp2_option_new(&made) != 0) throw std::bad_alloc();
    nghttp2_option_set_no_auto_window_update(made, 1);
    nghttp2_option_set_no_closed_streams(made, 1);
    nghttp2_option_set_stream_reset_rate_limit(made, kResetBurst, kResetsPerSecond);
    return made;
  }();
  return options;
}

}  // namespace penstock
