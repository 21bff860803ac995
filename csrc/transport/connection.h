// Connection: a socket, perhaps TLS, an HTTP/2 session on it, and the calls that are its streams.

#pragma once

#include <nghttp2/nghttp2.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "transport/auth_context.h"
#include "transport/call.h"
#include "transport/out_queue.h"
#include "transport/request_head.h"
#include "transport/socket.h"
#include "transport/tls.h"

namespace penstock {

class IoThread;

// Threading: confined to its I/O thread.
// Ownership: owns the socket and the session, and a reference on each of its calls; borrows the
// thread, which outlives it.
// Lifecycle: made -> OnReadable, OnWritable, Flush, OnTimer -> is_closed(); Drain at any time. Its
// thread deletes it, outside of all of these.
// Blocking: never.
class Connection {
 public:
  // `tls` null: plain text.
  Connection(IoThread& io, Socket socket, std::string peer, std::unique_ptr<TlsSession> tls);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void OnReadable();
  void OnWritable();
  // Frames to bytes, bytes to the socket: once for each turn of the loop in which something came up.
  void Flush();
  // Deadlines, pings, ages.
  void OnTimer(int64_t now_ns);
  // Tells the client to go elsewhere for new calls; closes once those under way have ended.
  void Drain();
  // Streams of inference take no more.
  void CloseStreams();
  // Ends it and its calls at once.
  void Abort() { Close(); }

  bool is_closed() const { return is_closed_; }
  int fd() const { return socket_.fd(); }
  IoThread& io() const { return io_; }
  const std::string& peer() const { return peer_; }
  // Tells it from all others, which the peer does not: each client of a Unix socket is "unix:".
  const std::string& name() const { return name_; }
  // Null: plain text. Read once, for all of its calls.
  const std::shared_ptr<const AuthContext>& auth_context();

  // What calls do with their streams; none of these writes to the socket at once.
  void SubmitHeaders(Call* call, Compression compression, const Metadata& metadata);
  void SubmitTrailersOnly(int32_t stream_id, const Status& status, const Metadata& metadata);
  void SubmitTrailers(int32_t stream_id, const Status& status, const Metadata& metadata);
  void Resume(int32_t stream_id);
  void Consume(int32_t stream_id, size_t bytes);
  // Messages are waiting for the socket's queue, or no longer.
  void CountUnsent(ptrdiff_t change) { unsent_messages_ += static_cast<size_t>(change); }
  // `call` has messages that are not encoded: at the turn's end they are, if they are still there.
  void EncodeLater(Call* call);
  // When OnTimer has something to do.
  int64_t due_ns() const { return due_ns_; }

  bool is_dirty = false;  // its thread has it in the list of those to be flushed

 private:
  struct Callbacks;
  friend struct Callbacks;

  // What of the socket it waits for.
  struct Waits {
    bool to_write = false;  // it takes no more for now
    bool to_read = true;    // not while TLS must write before it can read: what has come would be
                            // told of again and again
    bool operator==(const Waits&) const = default;
  };

  // For the answer to the ping behind the first GOAWAY.
  static constexpr int64_t kGoawayNs = 1'000'000'000;
  // For who shakes hands when the drain begins: it is told to go then, in words it understands. One
  // that is refused without a word would count the server as broken, where its successor serves.
  static constexpr int64_t kDrainHandshakeNs = 5'000'000'000;

  Status StartSession();
  void Handshake();
  bool ReadOnce(bool* may_have_more);
  bool Receive(std::span<const uint8_t> bytes);
  bool FillFromSession();
  void EncodeUnsent();
  void TellSent();
  bool WriteOut();
  bool WritePlain();
  bool WriteTls();
  void Watch(Waits waits);
  void FinishIfIdle();
  void Linger();
  void EndCalls();
  void Close();

  void CheckPing();
  void OnPingAck(bool is_drains);
  void BeginDrain();
  void SayGoaway(uint32_t error_code, std::string_view why);
  void CheckKeepalive(int64_t now_ns);
  void CheckAgeAndIdle(int64_t now_ns);
  void CheckDeadlines(int64_t now_ns);
  void CheckSlowReader(int64_t now_ns);
  void WatchForSlowReader();
  // Asks for OnTimer at `when_ns` at the latest.
  void SetDue(int64_t when_ns);

  void BeginCall();
  void AnswerHttp(const char* status);
  void Link(Call* call);
  void Unlink(Call* call);
  Call* FindCall(int32_t stream_id) const {
    return static_cast<Call*>(nghttp2_session_get_stream_user_data(session_, stream_id));
  }

  // Constant after construction.
  IoThread& io_;
  const std::string peer_;
  const std::string name_;
  const int64_t opened_ns_;
  const int64_t max_age_ns_;  // with a little of chance, so that not all reconnect at once
  const int64_t end_ns_;      // when what calls are left of one of age are ended

  Socket socket_;
  std::unique_ptr<TlsSession> tls_;
  nghttp2_session* session_ = nullptr;
  RequestHead head_;              // of the header block under way
  bool is_request_head_ = false;  // else trailers, which say nothing here
  std::shared_ptr<const AuthContext> auth_context_;
  OutQueue out_;
  std::vector<Call*> sent_;       // with a reference each, see Call::OnSent
  std::vector<Call*> unencoded_;  // likewise, see EncodeLater
  Call* calls_ = nullptr;
  size_t unsent_messages_ = 0;

  bool is_handshaking_;
  bool has_begun_ = false;  // a frame has come: the client speaks HTTP/2
  bool is_closed_ = false;
  Waits waits_;
  bool is_draining_ = false;
  bool has_said_goaway_ = false;  // the last one, which names the last stream

  int64_t due_ns_ = kNever;
  int64_t next_deadline_ns_ = kNever;  // not after the first of the calls'
  int64_t slow_due_ns_ = kNever;       // the next look for replies that are read slowly
  int64_t last_read_ns_;
  int64_t idle_since_ns_;        // while there is no call
  int64_t linger_until_ns_ = 0;  // 0 = it does not: else all is written, the client is to close
  int64_t drain_ns_ = 0;         // when it began
  int64_t ping_sent_ns_ = 0;     // 0 = none is under way
  int64_t last_ping_ns_ = 0;     // the client's
  int ping_strikes_ = 0;
};

}  // namespace penstock
