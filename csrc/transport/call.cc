#include "transport/call.h"

#include <algorithm>
#include <new>
#include <utility>

#include "base/strcat.h"
#include "memory/host_pool.h"
#include "transport/connection.h"
#include "transport/io_thread.h"

namespace penstock {
namespace {

int64_t DeadlineOf(const RequestHead& head, int64_t now_ns) {
  if (head.timeout_ns() == kNever) return kNever;
  return head.timeout_ns() > kNever - now_ns ? kNever : now_ns + head.timeout_ns();
}

std::unique_ptr<AccessRecord> BeginAccess(const Connection& connection, const RequestHead& head) {
  const IoThread& io = connection.io();
  if (io.access_log() == nullptr) return nullptr;
  auto record = std::make_unique<AccessRecord>();
  record->begun_ns = io.engine().clock().NowNs();
  record->peer.Set(connection.peer());
  record->method.Set(head.path());
  for (const auto& [name, value] : head.metadata()) {
    if (name == "x-request-id") record->request_id.Set(value);
  }
  return record;
}

}  // namespace

void* Call::operator new(size_t size, SessionMemory& memory) {
  if (void* const block = memory.Allocate(size)) return block;
  throw std::bad_alloc();
}

Call::Call(Connection& connection, const RequestHead& head)
    : deadline_ns_(DeadlineOf(head, connection.io().now_ns())),
      io_(connection.io()),
      stream_id_(head.stream_id()),
      encoding_(head.encoding()),
      reply_compression_(io_.options().response_compression_level > 0 ? head.accepted()
                                                                      : Compression::kIdentity),
      access_(BeginAccess(connection, head)),
      connection_(&connection),
      reader_(io_.options().max_message_bytes, io_.budget()) {}

void Call::DropUnsent() {
  unsent_bytes_ = 0;
  unencoded_ = nullptr;
  for (; !unsent_.empty(); unsent_.PopFront()) connection_->CountUnsent(-1);
}

void Call::OnData(std::span<const uint8_t> data) {
  unconsumed_ += data.size();
  if (access_ != nullptr) access_->received_bytes += data.size();
  while (!data.empty() && !is_finished_) {
    MessageReader::Message message;
    const Result<bool> is_complete = reader_.Read(&data, &message);
    if (!is_complete.ok()) {
      Fail(is_complete.status());
    } else if (*is_complete) {
      if (const Status status = Accept(std::move(message)); !status.ok()) Fail(status);
    }
  }
  if (is_inbox_empty() || is_finished_) Consume();
}

// Hands it over at once where nothing waits, which is always so on a unary call.
Status Call::Accept(MessageReader::Message message) {
  if (is_inbox_empty() && !is_delivering_ && WantsMessage()) return Give(std::move(message));
  if (inbox_.size() - inbox_first_ >= kMaxInbox) {
    return ResourceExhausted(StrCat("the call has sent ", kMaxInbox,
                                    " messages that were not read yet, which is the limit"));
  }
  inbox_.push_back(std::move(message));
  return Status::Ok();
}

// Decompressed only now: what nobody wants yet must not become large.
Status Call::Give(MessageReader::Message message) {
  if (message.is_compressed) {
    if (encoding_ == Compression::kIdentity) {
      return Internal("a message is compressed, and the header 'grpc-encoding' does not say how");
    }
    if (!io_.options().compression) {
      return Unimplemented(
          StrCat("Compression algorithm '", CompressionName(encoding_), "' is disabled."));
    }
    PENSTOCK_ASSIGN_OR_RETURN(
        Buffer bytes, Decompress(encoding_, message.bytes.span(), io_.options().max_message_bytes,
                                 HostPool::Shared()));
    const size_t size = bytes.size();
    message.bytes = MessageBytes(std::move(bytes), io_.budget());
    if (!message.bytes.HoldFor(size)) return ByteBudgetExceeded(io_.budget());
  }
  OnMessage(std::move(message.bytes));
  return Status::Ok();
}

void Call::Deliver() {
  if (is_delivering_) return;  // it is what the lane wants more in the middle of
  is_delivering_ = true;
  while (!is_inbox_empty() && !is_finished_ && WantsMessage()) {
    const Status status = Give(std::move(inbox_[inbox_first_++]));
    if (!status.ok()) Fail(status);
  }
  is_delivering_ = false;
  TidyInbox();
  if (!is_inbox_empty()) return;
  Consume();
  if (has_half_closed_ && !has_last_message_ && !is_finished_ && WantsMessage()) {
    has_last_message_ = true;
    OnLastMessage();
  }
}

// Drops what has been given: all at once, or when it is more than what waits.
void Call::TidyInbox() {
  if (is_delivering_) return;
  if (is_finished_) inbox_first_ = inbox_.size();
  if (inbox_first_ * 2 < inbox_.size()) return;
  inbox_.erase(inbox_.begin(), inbox_.begin() + static_cast<ptrdiff_t>(inbox_first_));
  inbox_first_ = 0;
}

void Call::OnHalfClosed() {
  has_half_closed_ = true;
  if (!is_finished_ && !reader_.is_between_messages()) {
    Fail(Internal("the call ends in the middle of a message"));
    return;
  }
  Deliver();
}

// The client is wrong, or asks for too much: that ends the call, and the lane hears of it.
void Call::Fail(const Status& status) {
  Finish(status);
  EndLane(CallEnd::kCancelled);
}

// Gives the client its window back for what has been taken.
void Call::Consume() {
  if (unconsumed_ == 0 || connection_ == nullptr) return;
  connection_->Consume(stream_id_, std::exchange(unconsumed_, 0));
}

void Call::OnStreamClosed(CallEnd end) {
  DropUnsent();
  connection_ = nullptr;
  EndLane(is_finished_ ? CallEnd::kFinished : end);
  if (access_ != nullptr) LogAccess(io_, access_.get());
}

void Call::LogAccess(IoThread& io, AccessRecord* record) {
  record->ended_ns = io.engine().clock().NowNs();
  record->ended_unix_ms = UnixTimeMs();
  io.access_log()->Push(*record);
}

void Call::LogRefused(const Connection& connection, const RequestHead& head, const Status& status) {
  const auto record = BeginAccess(connection, head);
  if (record == nullptr) return;
  record->status = status.code();
  LogAccess(connection.io(), record.get());
}

void Call::OnDeadline() {
  if (is_finished_) return;
  Finish(DeadlineExceeded("Deadline Exceeded"));
  EndLane(CallEnd::kDeadlineExceeded);
}

void Call::EndLane(CallEnd end) {
  if (std::exchange(has_ended_, true)) return;
  OnEnd(end);
}

void Call::SendHeaders(const Metadata& metadata) {
  if (has_sent_headers_ || connection_ == nullptr) return;
  has_sent_headers_ = true;
  connection_->SubmitHeaders(this, reply_compression_, metadata);
}

void Call::Send(ReplyRef reply) {
  if (connection_ == nullptr || is_finished_) return;
  unsent_bytes_ += reply->left();
  connection_->CountUnsent(1);
  Reply* const added = reply.get();
  unsent_.Append(std::move(reply));
  if (unencoded_ == nullptr) {
    unencoded_ = added;
    connection_->EncodeLater(this);
  }
  SendHeaders({});
  if (std::exchange(is_deferred_, false)) connection_->Resume(stream_id_);
}

void Call::Finish(const Status& status, const Metadata& metadata) {
  if (std::exchange(is_finished_, true) || connection_ == nullptr) return;
  if (access_ != nullptr) access_->status = status.code();
  TidyInbox();
  reader_.Reset();
  if (!has_sent_headers_) {
    has_sent_headers_ = true;
    connection_->SubmitTrailersOnly(stream_id_, status, metadata);
    return;
  }
  trailers_ = {status, metadata};
  if (std::exchange(is_deferred_, false)) connection_->Resume(stream_id_);
}

ssize_t Call::PlanFrame(size_t length, uint32_t* flags) {
  const size_t size = std::min(length, unsent_bytes_);
  if (size == unsent_bytes_ && is_finished_) {
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    connection_->SubmitTrailers(stream_id_, trailers_.status, trailers_.metadata);
  } else if (size == 0) {
    is_deferred_ = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  return static_cast<ssize_t>(size);
}

bool Call::TakeFrame(size_t size, OutQueue* out) {
  unsent_bytes_ -= size;
  if (access_ != nullptr) access_->sent_bytes += size;
  while (size != 0) {
    Reply& reply = *unsent_.front();
    const size_t part = std::min(size, reply.left());
    if (reply.begun_ns == kNever) reply.begun_ns = io_.now_ns();
    reply.Take(part, out);
    size -= part;
    if (reply.left() != 0) break;
    if (unencoded_ == &reply) unencoded_ = reply.next;
    ReplyRef sent = unsent_.PopFront();
    if (sent->whole) {
      sent_parts_.Append(std::move(sent));
    } else {
      sent_messages_ += 1;
    }
    connection_->CountUnsent(-1);
  }
  return sent_messages_ != 0 || !sent_parts_.empty();
}

void Call::OnSent() {
  const size_t count = std::exchange(sent_messages_, 0);
  if (count != 0 && !has_ended_) OnMessagesSent(count);
  while (!sent_parts_.empty()) {
    const ReplyRef part = sent_parts_.PopFront();
    if (!has_ended_) OnPartSent(*part);
  }
}

void Call::EncodeUnsent() {
  for (; unencoded_ != nullptr; unencoded_ = unencoded_->next) unencoded_->EncodeNow();
}

void Call::CopyOut(int64_t begun_before_ns) {
  Reply* const reply = unsent_.front();  // those behind it are not begun
  if (reply != nullptr && reply->IsHeldSince(begun_before_ns)) reply->CopyRest();
}

}  // namespace penstock
