#include "load/connection.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "base/strcat.h"
#include "load/dial.h"

namespace penstock::load {
namespace {

constexpr size_t kReceiveBytes = 256 << 10;
constexpr size_t kBorrowBytes = 4096;      // pieces from here on are sent from where they lie
constexpr int32_t kWindowBytes = 1 << 30;  // of streams and of connections
constexpr size_t kFrameHeaderBytes = 9;
constexpr size_t kPayloadBytes = 64 << 10;  // of one DATA frame, where the server takes so much

Connection& Self(void* self) { return *static_cast<Connection*>(self); }

std::string_view View(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// A number in text, or `otherwise`.
int Number(std::string_view text, int otherwise) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? value : otherwise;
}

// NOLINTNEXTLINE(readability-function-size): nghttp2's signature
ssize_t PayloadLength(nghttp2_session* /*session*/, uint8_t /*type*/, int32_t /*stream_id*/,
                      int32_t connection_window, int32_t stream_window, uint32_t max_frame,
                      void* /*self*/) {
  const auto room = static_cast<size_t>(std::min(connection_window, stream_window));
  return static_cast<ssize_t>(std::min({room, size_t{max_frame}, kPayloadBytes}));
}

}  // namespace

struct Connection::Call {
  // A message that is being sent: prefix, body, tail.
  struct Sending {
    std::array<uint8_t, kPrefixBytes> prefix;
    std::string_view body;
    std::string tail;
    std::shared_ptr<const std::string> owner;  // of the body, or none
    size_t sent = 0;

    size_t size() const { return prefix.size() + body.size() + tail.size(); }
    // Bytes that will stay where they are, long enough to be worth it.
    bool MayLend(std::string_view piece) const {
      return piece.size() >= kBorrowBytes && owner == nullptr && sent >= prefix.size() &&
             sent < prefix.size() + body.size();
    }
    std::string_view At(size_t offset) const {
      if (offset < prefix.size()) return View(prefix.data(), prefix.size()).substr(offset);
      offset -= prefix.size();
      if (offset < body.size()) return body.substr(offset);
      return std::string_view(tail).substr(offset - body.size());
    }
  };

  uint32_t lane = 0;
  bool is_stream = false;
  bool is_deferred = false;  // nghttp2 waits for Send
  int32_t stream_id = -1;
  int http_status = 0;
  int grpc_status = -1;
  std::string grpc_message;
  std::deque<Sending> sending;
  size_t left_bytes = 0;          // of `sending`
  std::deque<uint64_t> awaiting;  // tokens, oldest first
  size_t responses = 0;           // to the first of them, so far
  MessageCutter received;
};

Result<std::unique_ptr<Connection>> Connection::Connect(const Target& target, AnswerSink* sink) {
  PENSTOCK_ASSIGN_OR_RETURN(const int fd, Dial(target.host, target.port));
  return std::unique_ptr<Connection>(new Connection(fd, target, sink));
}

Connection::Connection(int fd, const Target& target, AnswerSink* sink)
    : fd_(fd), responses_(target.responses), sink_(sink), buffer_(kReceiveBytes) {
  header_texts_ = {{":method", "POST"},
                   {":scheme", "http"},
                   {":path", target.path},
                   {":authority", StrCat(target.host, ":", target.port)},
                   {"content-type", "application/grpc"},
                   {"te", "trailers"},
                   {"user-agent", "penstock-load"}};
  if (target.timeout_ms > 0) {
    header_texts_.emplace_back("grpc-timeout", StrCat(target.timeout_ms, "m"));
  }
  header_texts_.insert(header_texts_.end(), target.metadata.begin(), target.metadata.end());
  for (auto& [name, value] : header_texts_) {
    headers_.push_back({reinterpret_cast<uint8_t*>(name.data()),
                        reinterpret_cast<uint8_t*>(value.data()), name.size(), value.size(),
                        NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE});
  }
  static nghttp2_session_callbacks* const callbacks = MakeCallbacks();
  // nghttp2 fails here for want of memory only.
  [[maybe_unused]] int failed = nghttp2_session_client_new(&session_, callbacks, this);
  assert(failed == 0);
  const std::array<nghttp2_settings_entry, 3> settings = {{
      {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kWindowBytes},
      {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
  }};
  failed = nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
  assert(failed == 0);
  failed = nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kWindowBytes);
  assert(failed == 0);
}

Connection::~Connection() {
  nghttp2_session_del(session_);
  close(fd_);
}

nghttp2_session_callbacks* Connection::MakeCallbacks() {
  nghttp2_session_callbacks* callbacks = nullptr;
  [[maybe_unused]] const int failed = nghttp2_session_callbacks_new(&callbacks);
  assert(failed == 0);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, &OnHeader);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, &OnData);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, &OnFrame);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, &OnClose);
  nghttp2_session_callbacks_set_send_data_callback(callbacks, &SendData);
  nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks, &PayloadLength);
  return callbacks;
}

Connection::Call* Connection::Open(uint32_t lane, bool is_stream) {
  if (idle_.empty()) idle_.push_back(calls_.emplace_back(std::make_unique<Call>()).get());
  Call* call = idle_.back();
  idle_.pop_back();
  call->lane = lane;
  call->is_stream = is_stream;
  ++open_calls_;
  return call;
}

void Connection::Send(Call* call, Message message) {
  const size_t size = message.body.size() + message.tail.size();
  call->sending.push_back(
      {GrpcPrefix(size), message.body, std::move(message.tail), std::move(message.owner)});
  call->left_bytes += kPrefixBytes + size;
  call->awaiting.push_back(message.token);
  if (call->stream_id < 0) {
    nghttp2_data_provider provider{};
    provider.source.ptr = call;
    provider.read_callback = &ReadBody;
    call->stream_id = nghttp2_submit_request(session_, nullptr, headers_.data(), headers_.size(),
                                             &provider, call);
    if (call->stream_id < 0) {  // out of stream numbers, or told to go away
      going_away_ = true;
      End(call, NGHTTP2_REFUSED_STREAM);
    }
  } else if (call->is_deferred) {
    call->is_deferred = false;
    [[maybe_unused]] const int failed = nghttp2_session_resume_data(session_, call->stream_id);
    assert(failed == 0);
  }
}

bool Connection::Read() {
  const ssize_t size = recv(fd_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
  if (size == 0) return false;
  if (size < 0) return errno == EAGAIN || errno == EINTR;
  return nghttp2_session_mem_recv(session_, buffer_.data(), static_cast<size_t>(size)) == size;
}

bool Connection::Write() {
  while (true) {
    if (!output_.IsDrained() && !output_.Send(fd_)) return false;
    if (!output_.IsDrained()) break;
    for (Call* call : closing_) Release(call);
    closing_.clear();
    if (!FillOutput()) return false;
    if (output_.IsDrained()) break;
  }
  return nghttp2_session_want_read(session_) != 0 || nghttp2_session_want_write(session_) != 0;
}

bool Connection::FillOutput() {
  const uint8_t* data = nullptr;
  ssize_t size = 0;
  while (!output_.IsFull() && (size = nghttp2_session_mem_send(session_, &data)) > 0) {
    output_.Copy(data, static_cast<size_t>(size));
  }
  return size >= 0;
}

void Connection::Abandon(Outcome outcome, std::string_view text) {
  for (const auto& call : calls_) Fail(call.get(), outcome, text);
}

// NOLINTNEXTLINE(readability-function-size): nghttp2's signature
int Connection::OnHeader(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name,
                         size_t name_size, const uint8_t* value, size_t value_size,
                         uint8_t /*flags*/, void* /*self*/) {
  auto* call =
      static_cast<Call*>(nghttp2_session_get_stream_user_data(session, frame->hd.stream_id));
  if (call == nullptr) return 0;
  const std::string_view header = View(name, name_size);
  if (header == ":status") {
    call->http_status = Number(View(value, value_size), 0);
  } else if (header == "grpc-status") {
    call->grpc_status = Number(View(value, value_size), -1);
  } else if (header == "grpc-message") {
    call->grpc_message = View(value, value_size);
  }
  return 0;
}

// NOLINTNEXTLINE(readability-function-size): nghttp2's signature
int Connection::OnData(nghttp2_session* session, uint8_t /*flags*/, int32_t stream_id,
                       const uint8_t* data, size_t size, void* self) {
  auto* call = static_cast<Call*>(nghttp2_session_get_stream_user_data(session, stream_id));
  if (call == nullptr) return 0;
  call->received.Append(data, size);
  if (call->is_stream) Self(self).TakeMessages(call);
  return 0;
}

int Connection::OnFrame(nghttp2_session* session, const nghttp2_frame* frame, void* self) {
  if (frame->hd.type == NGHTTP2_GOAWAY) Self(self).going_away_ = true;
  const bool carries_end = frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA;
  if (!carries_end || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
  const int32_t stream_id = frame->hd.stream_id;
  const auto* call = static_cast<Call*>(nghttp2_session_get_stream_user_data(session, stream_id));
  if (call == nullptr || (!call->is_stream && call->left_bytes == 0)) return 0;
  // The server has said its last word; ours would not be heard.
  return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream_id, NGHTTP2_CANCEL);
}

int Connection::OnClose(nghttp2_session* session, int32_t stream_id, uint32_t error_code,
                        void* self) {
  auto* call = static_cast<Call*>(nghttp2_session_get_stream_user_data(session, stream_id));
  if (call != nullptr) Self(self).End(call, error_code);
  return 0;
}

// NOLINTNEXTLINE(readability-function-size): nghttp2's signature
ssize_t Connection::ReadBody(nghttp2_session* /*session*/, int32_t /*stream_id*/,
                             uint8_t* /*buffer*/, size_t limit, uint32_t* flags,
                             nghttp2_data_source* source, void* /*self*/) {
  auto* call = static_cast<Call*>(source->ptr);
  if (call->left_bytes == 0) {
    call->is_deferred = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  const size_t length = std::min(limit, call->left_bytes);
  if (!call->is_stream && length == call->left_bytes) *flags |= NGHTTP2_DATA_FLAG_EOF;
  return static_cast<ssize_t>(length);
}

// NOLINTNEXTLINE(readability-function-size): nghttp2's signature
int Connection::SendData(nghttp2_session* /*session*/, nghttp2_frame* /*frame*/,
                         const uint8_t* frame_header, size_t length, nghttp2_data_source* source,
                         void* self) {
  Output& output = Self(self).output_;
  output.Copy(frame_header, kFrameHeaderBytes);
  auto* call = static_cast<Call*>(source->ptr);
  call->left_bytes -= length;
  while (length > 0) {
    Call::Sending& sending = call->sending.front();
    const std::string_view piece = sending.At(sending.sent).substr(0, length);
    const auto* data = reinterpret_cast<const uint8_t*>(piece.data());
    sending.MayLend(piece) ? output.Borrow(data, piece.size()) : output.Copy(data, piece.size());
    sending.sent += piece.size();
    length -= piece.size();
    if (sending.sent == sending.size()) call->sending.pop_front();
  }
  return 0;
}

void Connection::TakeMessages(Call* call) {
  while (const auto message = call->received.Next()) {
    if (call->awaiting.empty()) {
      going_away_ = true;  // whatever this server answers is not to be trusted
      return;
    }
    if (++call->responses < responses_) continue;
    call->responses = 0;
    const uint64_t token = call->awaiting.front();
    call->awaiting.pop_front();
    sink_->OnAnswer(call->lane, token, {Outcome::kOk, "", *message});
  }
}

const char* Connection::TakeOnly(Call* call) {
  const auto message = call->received.Next();
  if (!message) return call->received.fault();
  if (!call->received.is_empty()) return "more than one message answers a unary call";
  const uint64_t token = call->awaiting.front();
  call->awaiting.pop_front();
  sink_->OnAnswer(call->lane, token, {Outcome::kOk, "", *message});
  return nullptr;
}

void Connection::Fail(Call* call, Outcome outcome, std::string_view text) {
  while (!call->awaiting.empty()) {
    const uint64_t token = call->awaiting.front();
    call->awaiting.pop_front();
    sink_->OnAnswer(call->lane, token, {outcome, text, ""});
  }
}

void Connection::End(Call* call, uint32_t error_code) {
  if (call->grpc_status > 16) call->grpc_status = 2;
  const char* fault = call->received.fault();
  if (fault == nullptr && call->grpc_status == 0 && !call->is_stream) fault = TakeOnly(call);
  if (fault != nullptr) {
    Fail(call, Outcome::kBadResponse, fault);
  } else if (call->grpc_status > 0) {
    Fail(call, static_cast<Outcome>(call->grpc_status), call->grpc_message);
  } else if (call->grpc_status == 0) {
    Fail(call, Outcome::kBadResponse, "status OK without an answer");
  } else if (error_code != NGHTTP2_NO_ERROR) {
    Fail(call, Outcome::kConnectionLost,
         StrCat("the call was reset: ", nghttp2_http2_strerror(error_code)));
  } else {
    Fail(call, Outcome::kBadResponse,
         StrCat("HTTP status ", call->http_status, " without a grpc-status"));
  }
  sink_->OnCallEnded(call->lane);
  closing_.push_back(call);
  --open_calls_;
}

void Connection::Release(Call* call) {
  call->stream_id = -1;
  call->http_status = 0;
  call->grpc_status = -1;
  call->grpc_message.clear();
  call->sending.clear();
  call->left_bytes = 0;
  call->responses = 0;
  call->is_deferred = false;
  call->received.Clear();
  idle_.push_back(call);
}

}  // namespace penstock::load
