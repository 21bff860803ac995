// What nghttp2 calls: C frames, through which nothing may be thrown.

#pragma once

#include <nghttp2/nghttp2.h>

#include <cstddef>
#include <cstdint>

#include "transport/connection.h"

namespace penstock {

// Of DATA, ours and the client's: a large tensor takes few, and others get their turn in between.
inline constexpr size_t kMaxHttp2FrameBytes = 256 << 10;

// Threading: on the connection's I/O thread, within nghttp2_session_mem_recv and _mem_send.
struct Connection::Callbacks {
  static int OnBeginHeaders(nghttp2_session*, const nghttp2_frame* frame, void* user);
  static int OnHeader(nghttp2_session*, const nghttp2_frame*, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size, uint8_t, void* user);
  static int OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* user);
  static int OnData(nghttp2_session* session, uint8_t, int32_t stream_id, const uint8_t* data,
                    size_t size, void* user);
  static int OnStreamClose(nghttp2_session*, int32_t stream_id, uint32_t, void* user);
  // A call that was answered before its client had sent everything: it may stop now. Behind the
  // notice of a drain, and not before it as nghttp2 would order them, a ping: its answer says that
  // the client has seen the notice.
  static int OnFrameSent(nghttp2_session* session, const nghttp2_frame* frame, void* user);
  // Headers or trailers that cannot be: without them the client would wait for ever.
  static int OnFrameNotSent(nghttp2_session* session, const nghttp2_frame* frame, int error,
                            void* user);
  static ssize_t OnPlan(nghttp2_session*, int32_t, uint8_t*, size_t length, uint32_t* flags,
                        nghttp2_data_source* source, void*);
  static int OnSendData(nghttp2_session*, nghttp2_frame* frame, const uint8_t* head, size_t size,
                        nghttp2_data_source* source, void* user);
  static ssize_t MaxFrame(nghttp2_session*, uint8_t, int32_t, int32_t session_window,
                          int32_t stream_window, uint32_t max_frame, void*);
  static nghttp2_session_callbacks* Table();
  static nghttp2_option* Options();

 private:
  static Connection& Self(void* user) { return *static_cast<Connection*>(user); }
  template <typename Body>
  static int Guard(Body body) noexcept;
};

}  // namespace penstock
