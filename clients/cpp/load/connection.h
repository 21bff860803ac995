// Connection: one HTTP/2 connection to a gRPC server, and the calls on it.

#pragma once

#include <nghttp2/nghttp2.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "load/message.h"
#include "load/outcome.h"
#include "load/output.h"

namespace penstock::load {

// Where to, and what every call's headers say.
struct Target {
  std::string host = "127.0.0.1";  // a name or an address
  uint16_t port = 0;
  std::string path = "";
  int64_t timeout_ms = 0;  // sent as grpc-timeout; 0 = none
  std::vector<std::pair<std::string, std::string>> metadata = {};
  size_t responses = 1;  // messages that answer one on a stream; the last is the answer
};

// A message to send: `body`, and behind it `tail` (an id, in most cases "").
// Ownership: `body` is borrowed for as long as the connection lives; or, where it has an owner, kept
// alive by that until it is sent (it is then copied once more).
struct Message {
  uint64_t token = 0;
  std::string_view body;
  std::string tail;
  std::shared_ptr<const std::string> owner;
};

// Takes answers: exactly one for every message that was given to Connection::Send.
class AnswerSink {
 public:
  virtual ~AnswerSink() = default;
  // `lane` is the call's (see Open). Must not call the connection.
  virtual void OnAnswer(uint32_t lane, uint64_t token, const Answer& answer) = 0;
  // The call is over; its lane needs another one for what is sent next.
  virtual void OnCallEnded(uint32_t lane) = 0;
};

// Threading: confined to one thread.
// Ownership: owns the socket; borrows the sink and the bodies of messages.
// Lifecycle: Connect; Open, Send, Read and Write in any order; once one of Read and Write was false,
// or it is no longer usable and empty, Abandon and the destructor.
// Blocking: Connect, for at most a few seconds; nothing else.
class Connection {
 public:
  // A call on its way. Valid until OnCallEnded.
  struct Call;

  static Result<std::unique_ptr<Connection>> Connect(const Target& target, AnswerSink* sink);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Starts a call. A unary one takes one message; a stream any number, until it ends.
  Call* Open(uint32_t lane, bool is_stream);
  void Send(Call* call, Message message);

  int fd() const { return fd_; }
  size_t open_calls() const { return open_calls_; }
  bool wants_to_write() const { return !output_.IsDrained(); }
  // False once the server has said that it takes no more calls here.
  bool is_usable() const { return !going_away_; }

  // Take what the socket brought, give it what it takes. False: the connection is over.
  bool Read();
  bool Write();

  // Gives every message without an answer this one.
  void Abandon(Outcome outcome, std::string_view text);

 private:
  Connection(int fd, const Target& target, AnswerSink* sink);

  static nghttp2_session_callbacks* MakeCallbacks();
  static int OnHeader(nghttp2_session*, const nghttp2_frame*, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size, uint8_t flags, void* self);
  static int OnData(nghttp2_session*, uint8_t flags, int32_t stream_id, const uint8_t* data,
                    size_t size, void* self);
  static int OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* self);
  static int OnClose(nghttp2_session*, int32_t stream_id, uint32_t error_code, void* self);
  static ssize_t ReadBody(nghttp2_session*, int32_t stream_id, uint8_t* buffer, size_t limit,
                          uint32_t* flags, nghttp2_data_source* source, void* self);
  static int SendData(nghttp2_session*, nghttp2_frame* frame, const uint8_t* frame_header,
                      size_t length, nghttp2_data_source* source, void* self);

  bool FillOutput();
  void TakeMessages(Call* call);
  const char* TakeOnly(Call* call);  // a unary call's answer; or what is wrong with it
  void Fail(Call* call, Outcome outcome, std::string_view text);
  void End(Call* call, uint32_t error_code);
  void Release(Call* call);

  const int fd_;
  const size_t responses_;
  AnswerSink* const sink_;
  std::deque<std::pair<std::string, std::string>> header_texts_;  // stay where they are
  std::vector<nghttp2_nv> headers_;
  nghttp2_session* session_ = nullptr;
  Output output_;
  std::vector<uint8_t> buffer_;
  std::vector<std::unique_ptr<Call>> calls_;
  std::vector<Call*> idle_;     // of calls_
  std::vector<Call*> closing_;  // ended, perhaps still lending bytes to output_
  size_t open_calls_ = 0;
  bool going_away_ = false;
};

}  // namespace penstock::load
