// Call: one RPC, as a stream of an HTTP/2 connection. What the two lanes have in common: messages in
// as the lane wants them, messages and trailers out as the client takes them.

#pragma once

#include <nghttp2/nghttp2.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "transport/access_log.h"
#include "transport/message_reader.h"
#include "transport/reply.h"
#include "transport/request_head.h"
#include "transport/session_memory.h"

namespace penstock {

class Connection;
class IoThread;

// Why a call is over, as its lane sees it.
enum class CallEnd : uint8_t {
  kFinished = 0,          // its trailers were sent
  kCancelled = 1,         // the client left it, or the connection went
  kDeadlineExceeded = 4,  // its time is up; the client has been told
};

// Threading: confined to the I/O thread of its connection.
// Ownership: counted: the stream holds one reference while it is open, its lane what it needs.
// Borrows the connection, until the stream is closed.
// Lifecycle: OnStart -> OnData*, OnHalfClosed -> Finish -> OnStreamClosed; the last from any state.
class Call {
 public:
  static void* operator new(size_t size, SessionMemory& memory);
  static void operator delete(void* block) { SessionMemory::Free(block); }
  static void operator delete(void* block, SessionMemory&) { SessionMemory::Free(block); }

  // For the access log: a call that its headers have kept from being one.
  static void LogRefused(const Connection& connection, const RequestHead& head,
                         const Status& status);

  Call(Connection& connection, const RequestHead& head);
  virtual ~Call() = default;
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  void Ref() { references_ += 1; }
  void Unref() {
    if (--references_ == 0) delete this;
  }

  // From the connection, in the order of the wire.
  virtual void OnStart() = 0;
  void OnData(std::span<const uint8_t> data);
  void OnHalfClosed();
  void OnStreamClosed(CallEnd end);
  void OnDeadline();
  // How many bytes the next DATA frame carries, at most `length`; as nghttp2's read callback.
  ssize_t PlanFrame(size_t length, uint32_t* flags);
  // The `size` bytes that were planned. True: messages have gone, OnSent is to follow.
  bool TakeFrame(size_t size, OutQueue* out);
  // Messages were moved to the socket's queue. Not within nghttp2's callbacks.
  void OnSent();
  // Encodes what its client does not take: a batch's memory must not wait for a slow reader.
  void EncodeUnsent();
  // Copies a reply that is taken since before `begun_before_ns` out of its batch's memory.
  void CopyOut(int64_t begun_before_ns);

  int32_t stream_id() const { return stream_id_; }
  Connection* connection() const { return connection_; }  // null once the stream is closed
  int64_t deadline_ns() const { return deadline_ns_; }
  bool is_finished() const { return is_finished_; }

  // What Python asks of a call (ForeignCall), and of one whose caller it has verified (InferCall).
  virtual void Read() {}
  virtual void SendMetadata(const Metadata&) {}
  virtual void Write(Buffer) {}
  virtual void End(const Status&, const Metadata&) {}
  virtual void Verified(const Status&) {}
  // The server closes: a stream of inference takes no more.
  virtual void OnClosing() {}

  Call* previous = nullptr;  // in its connection's list
  Call* next = nullptr;

 protected:
  // The lane.
  virtual bool WantsMessage() const = 0;
  virtual void OnMessage(MessageBytes message) = 0;
  virtual void OnLastMessage() = 0;     // the client sends no more
  virtual void OnEnd(CallEnd end) = 0;  // once; nothing comes after it
  // `count` messages were moved to the socket's queue.
  virtual void OnMessagesSent(size_t count) = 0;
  // The same of some responses of a decoupled request.
  virtual void OnPartSent(const Reply& /*part*/) {}

  // Hands over what has come, as far as the lane wants it.
  void Deliver();
  // The response's headers, once; Send and Finish see to it.
  void SendHeaders(const Metadata& metadata);
  void Send(ReplyRef reply);
  // Ends the call: what was sent, then the trailers. Once; what comes later is ignored.
  void Finish(const Status& status, const Metadata& metadata = {});

  IoThread& io() const { return io_; }
  Compression reply_compression() const { return reply_compression_; }
  // What the access log is told at the end; null: nothing.
  AccessRecord* access_record() const { return access_.get(); }

  const int64_t deadline_ns_;

 private:
  struct Trailers {
    Status status;
    Metadata metadata;
  };

  static constexpr size_t kMaxInbox = 65'536;  // messages: they may be empty, and cost memory

  Status Accept(MessageReader::Message message);
  // Hands a message to the lane.
  Status Give(MessageReader::Message message);
  bool is_inbox_empty() const { return inbox_first_ == inbox_.size(); }
  void TidyInbox();
  void Fail(const Status& status);
  void Consume();
  void DropUnsent();
  void EndLane(CallEnd end);
  static void LogAccess(IoThread& io, AccessRecord* record);

  // Constant after construction.
  IoThread& io_;
  const int32_t stream_id_;
  const Compression encoding_;
  const Compression reply_compression_;

  const std::unique_ptr<AccessRecord> access_;

  Connection* connection_;
  uint32_t references_ = 1;  // the stream's

  // In.
  MessageReader reader_;
  std::vector<MessageReader::Message> inbox_;  // complete, and not yet wanted; from inbox_first_ on
  size_t inbox_first_ = 0;
  size_t unconsumed_ = 0;  // bytes that the client's window is short of
  bool has_half_closed_ = false;
  bool has_last_message_ = false;  // the lane knows of it
  bool is_delivering_ = false;

  // Out.
  ReplyList unsent_;
  Reply* unencoded_ = nullptr;  // of those, from where on EncodeUnsent has not seen them
  size_t unsent_bytes_ = 0;
  size_t sent_messages_ = 0;  // that the lane has not been told of
  ReplyList sent_parts_;      // likewise
  bool has_sent_headers_ = false;
  bool is_deferred_ = false;  // nghttp2 waits for Resume
  bool is_finished_ = false;
  bool has_ended_ = false;  // OnEnd was called
  Trailers trailers_;
};

}  // namespace penstock
