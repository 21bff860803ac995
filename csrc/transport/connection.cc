#include "transport/connection.h"

#include <sys/epoll.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/log.h"
#include "base/strcat.h"
#include "transport/connection_callbacks.h"
#include "transport/foreign_call.h"
#include "transport/infer_call.h"
#include "transport/io_thread.h"

namespace penstock {
namespace {

// What a client may have under way before it waits for us, for one call and for all of them. Bytes
// that were taken are given back at once, so that a large tensor flows.
constexpr int32_t kStreamWindowBytes = 4 << 20;
constexpr int32_t kConnectionWindowBytes = 16 << 20;
// Enough for one system call; more is not made of frames before the socket takes it.
constexpr size_t kMaxQueuedBytes = 512 << 10;
constexpr size_t kMaxQueuedFrames = 2000;  // beside what the calls under way may need
constexpr int kMaxRuns = 64;               // of one writev
constexpr int kMaxReadsInARow = 4;         // then it is the others' turn
constexpr int kMaxTlsReadsInARow = 64;
constexpr int kMaxPingStrikes = 2;            // as gRPC has it
constexpr int64_t kLingerNs = 1'000'000'000;  // for the client to close, once all is written

}  // namespace

Connection::Connection(IoThread& io, Socket socket, std::string peer,
                       std::unique_ptr<TlsSession> tls)
    : io_(io),
      peer_(std::move(peer)),
      name_(StrCat(peer_, "#", io.NextSerial())),
      opened_ns_(io.now_ns()),
      max_age_ns_(io.Jittered(io.options().max_connection_age_ns)),
      end_ns_(max_age_ns_ == 0 || io.options().max_connection_age_grace_ns == 0
                  ? kNever
                  : opened_ns_ + max_age_ns_ + io.options().max_connection_age_grace_ns),
      socket_(std::move(socket)),
      tls_(std::move(tls)),
      is_handshaking_(tls_ != nullptr),
      last_read_ns_(opened_ns_),
      idle_since_ns_(opened_ns_) {
  if (const Status status = StartSession(); !status.ok()) {
    Log(LogLevel::kError, "transport", StrCat(peer_, ": ", status.message()));
    Close();
  }
  OnTimer(opened_ns_);  // for what is due first
}

Connection::~Connection() {
  Close();
  for (Call* call : sent_) call->Unref();
  for (Call* call : unencoded_) call->Unref();
  nghttp2_session_del(session_);
}

Status Connection::StartSession() {
  const int made = nghttp2_session_server_new3(&session_, Callbacks::Table(), this,
                                               Callbacks::Options(), io_.memory().nghttp2());
  if (made != 0) return ResourceExhausted(nghttp2_strerror(made));
  const TransportOptions& options = io_.options();
  const std::array<nghttp2_settings_entry, 4> settings = {
      {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams},
       {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kStreamWindowBytes},
       {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, kMaxHttp2FrameBytes},
       {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<uint32_t>(options.max_header_bytes)}}};
  int sent = nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
  if (sent == 0) {
    sent = nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0,
                                                 kConnectionWindowBytes);
  }
  return sent == 0 ? Status::Ok() : ResourceExhausted(nghttp2_strerror(sent));
}

void Connection::OnReadable() {
  if (is_handshaking_) {
    Handshake();
    if (is_handshaking_ || is_closed_) return;
  }
  if (linger_until_ns_ != 0) {
    const ssize_t got = recv(fd(), io_.read_buffer().data(), io_.read_buffer().size(), 0);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) Close();
    return;
  }
  const int most = tls_ != nullptr ? kMaxTlsReadsInARow : kMaxReadsInARow;
  bool may_have_more = true;
  for (int i = 0; i < most && may_have_more; ++i) {
    if (!ReadOnce(&may_have_more)) {
      Close();
      return;
    }
  }
  // What OpenSSL has in its own memory makes no socket readable.
  if (may_have_more && tls_ != nullptr) io_.ReadAgain(this);
  io_.MarkDirty(this);
}

void Connection::Handshake() {
  switch (tls_->Handshake()) {
    case TlsSession::Io::kDone:
      is_handshaking_ = false;
      if (is_draining_) BeginDrain();
      Watch({});
      io_.ReadAgain(this);  // the preface may have come with it, and lie in OpenSSL
      return;
    case TlsSession::Io::kWantRead:
      Watch({});
      return;
    case TlsSession::Io::kWantWrite:
      Watch({.to_write = true});
      return;
    default:
      Close();
  }
}

// False: the connection is at its end.
bool Connection::ReadOnce(bool* may_have_more) {
  const std::span<uint8_t> buffer = io_.read_buffer();
  size_t size = 0;
  if (tls_ != nullptr) {
    const TlsSession::Io result = tls_->Read(buffer, &size);
    *may_have_more = result == TlsSession::Io::kDone;
    if (result == TlsSession::Io::kWantRead) return true;
    if (result == TlsSession::Io::kWantWrite) {
      Watch({.to_write = true, .to_read = false});
      return true;
    }
    if (result != TlsSession::Io::kDone) return false;
  } else {
    const ssize_t got = recv(fd(), buffer.data(), buffer.size(), 0);
    *may_have_more = got == static_cast<ssize_t>(buffer.size());
    if (got < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    size = static_cast<size_t>(got);
  }
  if (size == 0) return false;
  return Receive(buffer.first(size));
}

bool Connection::Receive(std::span<const uint8_t> bytes) {
  io_.counters().bytes_read.fetch_add(bytes.size(), std::memory_order_relaxed);
  last_read_ns_ = io_.now_ns();
  const ssize_t taken = nghttp2_session_mem_recv(session_, bytes.data(), bytes.size());
  // A client that sends and reads nothing must not have us keep what we would tell it.
  const size_t queued = nghttp2_session_get_outbound_queue_size(session_);
  if (taken >= 0)
    return queued <= 4 * size_t{io_.options().max_concurrent_streams} + kMaxQueuedFrames;
  if (taken != NGHTTP2_ERR_BAD_CLIENT_MAGIC) Flush();  // the GOAWAY that says what was wrong
  return false;
}

void Connection::OnWritable() {
  if (is_handshaking_) {
    Handshake();
    return;
  }
  Watch({});
  if (tls_ != nullptr) io_.ReadAgain(this);  // what stopped a read may have been this
  io_.MarkDirty(this);
}

void Connection::Flush() {
  if (is_handshaking_ || linger_until_ns_ != 0) return;
  while (!is_closed_ && !waits_.to_write) {
    if (!FillFromSession()) {
      Close();
      return;
    }
    if (out_.empty()) break;
    if (!WriteOut()) {
      Close();
      return;
    }
    TellSent();
    if (!out_.empty()) break;  // the socket, or TLS, takes no more for now
  }
  if (is_closed_) return;
  EncodeUnsent();
  WatchForSlowReader();
  FinishIfIdle();
}

// Dirty in any case: of a stream that its window holds up nothing else would make it so.
void Connection::EncodeLater(Call* call) {
  call->Ref();
  unencoded_.push_back(call);
  io_.MarkDirty(this);
}

void Connection::EncodeUnsent() {
  for (Call* const call : unencoded_) {
    call->EncodeUnsent();
    call->Unref();
  }
  unencoded_.clear();
}

// Makes bytes of frames, up to a bound.
bool Connection::FillFromSession() {
  while (out_.size() < kMaxQueuedBytes) {
    const uint8_t* data = nullptr;
    const ssize_t size = nghttp2_session_mem_send(session_, &data);
    if (size < 0) return false;
    // DATA went to the queue by OnSendData, and comes back as nothing.
    if (size == 0) return true;
    out_.Append({data, static_cast<size_t>(size)});
  }
  return true;
}

void Connection::TellSent() {
  for (size_t i = 0; i < sent_.size(); ++i) {  // telling one may send more
    Call* const call = sent_[i];
    call->OnSent();
    call->Unref();
  }
  sent_.clear();
}

bool Connection::WriteOut() {
  const size_t before = out_.size();
  const bool is_open = tls_ != nullptr ? WriteTls() : WritePlain();
  io_.counters().bytes_written.fetch_add(before - out_.size(), std::memory_order_relaxed);
  return is_open;
}

bool Connection::WritePlain() {
  while (!out_.empty()) {
    std::array<iovec, kMaxRuns> runs;
    msghdr message{};
    message.msg_iov = runs.data();
    out_.ForFirst(kMaxRuns, [&](std::span<const uint8_t> run) {
      runs[message.msg_iovlen++] = {const_cast<uint8_t*>(run.data()), run.size()};
    });
    const ssize_t sent = sendmsg(fd(), &message, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) return false;
      Watch({.to_write = true});
      return true;
    }
    out_.Drop(static_cast<size_t>(sent));
  }
  return true;
}

bool Connection::WriteTls() {
  while (!out_.empty()) {
    TlsSession::Io result = TlsSession::Io::kDone;
    size_t sent = 0;
    out_.ForFirst(1, [&](std::span<const uint8_t> run) { result = tls_->Write(run, &sent); });
    if (result == TlsSession::Io::kDone) {
      out_.Drop(sent);
      continue;
    }
    if (result == TlsSession::Io::kWantWrite) Watch({.to_write = true});
    // Else it waits for bytes of the client, which make it readable, and dirty.
    return result == TlsSession::Io::kWantWrite || result == TlsSession::Io::kWantRead;
  }
  return true;
}

void Connection::Watch(Waits waits) {
  if (std::exchange(waits_, waits) == waits) return;
  io_.Watch(*this, (waits.to_write ? EPOLLOUT : 0U) | (waits.to_read ? EPOLLIN : 0U));
}

void Connection::FinishIfIdle() {
  if (!out_.empty() || nghttp2_session_want_write(session_) != 0) return;
  // After the notice of a drain nghttp2 would end it, and calls may be on their way.
  const bool is_noticed = is_draining_ && !has_said_goaway_;
  const bool is_over = nghttp2_session_want_read(session_) == 0 && !is_noticed;
  if (is_over || (has_said_goaway_ && calls_ == nullptr)) Linger();
}

// Closed with bytes unread, a socket takes what it has written back from its peer.
void Connection::Linger() {
  linger_until_ns_ = io_.now_ns() + kLingerNs;
  EndCalls();
  if (tls_ != nullptr) tls_->Shutdown();
  shutdown(fd(), SHUT_WR);
  SetDue(linger_until_ns_);
}

void Connection::Close() {
  if (std::exchange(is_closed_, true)) return;
  EndCalls();
  if (tls_ != nullptr && !is_handshaking_ && linger_until_ns_ == 0) tls_->Shutdown();
  io_.OnConnectionClosed(*this);
  socket_.Close();
}

void Connection::EndCalls() {
  while (calls_ != nullptr) {
    Call* const call = calls_;
    Unlink(call);
    call->OnStreamClosed(CallEnd::kCancelled);
    call->Unref();
  }
}

// Pings without anything to say in between cost us and not the client.
void Connection::CheckPing() {
  const int64_t now_ns = io_.now_ns();
  const int64_t since_ns = now_ns - std::exchange(last_ping_ns_, now_ns);
  if (since_ns >= io_.options().min_ping_interval_ns) {
    ping_strikes_ = 0;
  } else if (++ping_strikes_ > kMaxPingStrikes) {
    SayGoaway(NGHTTP2_ENHANCE_YOUR_CALM, "too_many_pings");
    nghttp2_session_terminate_session(session_, NGHTTP2_ENHANCE_YOUR_CALM);
  }
}

void Connection::OnPingAck(bool is_drains) {
  ping_sent_ns_ = 0;
  if (is_drains && is_draining_ && !has_said_goaway_) SayGoaway(NGHTTP2_NO_ERROR, {});
}

void Connection::Drain() {
  if (is_closed_ || std::exchange(is_draining_, true)) return;
  if (!is_handshaking_) return BeginDrain();
  drain_ns_ = io_.now_ns();  // what follows comes when it has shaken hands
  SetDue(drain_ns_ + kDrainHandshakeNs);
}

void Connection::BeginDrain() {
  drain_ns_ = io_.now_ns();
  // Calls may be on their way: the last stream is named once the client has seen the notice.
  nghttp2_submit_shutdown_notice(session_);
  SetDue(drain_ns_ + kGoawayNs);
  io_.MarkDirty(this);
}

void Connection::SayGoaway(uint32_t error_code, std::string_view why) {
  has_said_goaway_ = true;
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE,
                        nghttp2_session_get_last_proc_stream_id(session_), error_code,
                        reinterpret_cast<const uint8_t*>(why.data()), why.size());
  io_.MarkDirty(this);
}

void Connection::CloseStreams() {
  Call* call = calls_;
  while (call != nullptr) {
    Call* const next = call->next;
    call->OnClosing();
    call = next;
  }
  io_.MarkDirty(this);
}

void Connection::BeginCall() {
  if (!head_.is_post()) return AnswerHttp("405");
  if (!head_.is_grpc()) return AnswerHttp("415");
  io_.counters().calls.fetch_add(1, std::memory_order_relaxed);
  Status fault = head_.fault();
  const size_t most = io_.options().max_header_bytes;
  if (head_.size_bytes() > most) {
    fault = ResourceExhausted(
        StrCat("received metadata of ", head_.size_bytes(), " bytes exceeds the limit of ", most));
  }
  if (!fault.ok()) {
    Call::LogRefused(*this, head_, fault);
    SubmitTrailersOnly(head_.stream_id(), fault, {});
    return;
  }
  Call* const call = head_.is_infer() || head_.is_stream_infer()
                         ? static_cast<Call*>(new (io_.memory()) InferCall(*this, head_))
                         : new (io_.memory()) ForeignCall(*this, head_);
  Link(call);
  if (call->deadline_ns() < next_deadline_ns_) {
    next_deadline_ns_ = call->deadline_ns();
    if (next_deadline_ns_ < due_ns_) SetDue(next_deadline_ns_);
  }
  call->OnStart();
}

const std::shared_ptr<const AuthContext>& Connection::auth_context() {
  if (auth_context_ == nullptr && tls_ != nullptr) auth_context_ = AuthContextOf(*tls_);
  return auth_context_;
}

void Connection::Resume(int32_t stream_id) {
  nghttp2_session_resume_data(session_, stream_id);
  io_.MarkDirty(this);
}

void Connection::Consume(int32_t stream_id, size_t bytes) {
  nghttp2_session_consume_stream(session_, stream_id, bytes);
  io_.MarkDirty(this);
}

void Connection::Link(Call* call) {
  nghttp2_session_set_stream_user_data(session_, call->stream_id(), call);
  call->next = calls_;
  call->previous = nullptr;
  if (calls_ != nullptr) calls_->previous = call;
  calls_ = call;
  io_.counters().active_calls.fetch_add(1, std::memory_order_relaxed);
}

void Connection::Unlink(Call* call) {
  nghttp2_session_set_stream_user_data(session_, call->stream_id(), nullptr);
  (call->previous == nullptr ? calls_ : call->previous->next) = call->next;
  if (call->next != nullptr) call->next->previous = call->previous;
  io_.counters().active_calls.fetch_sub(1, std::memory_order_relaxed);
  if (calls_ != nullptr) return;
  idle_since_ns_ = io_.now_ns();
  if (const int64_t idle_ns = io_.options().max_connection_idle_ns; idle_ns != 0 && !is_closed_) {
    SetDue(idle_since_ns_ + idle_ns);
  }
}

}  // namespace penstock
