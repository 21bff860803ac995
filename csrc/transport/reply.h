// Reply: one gRPC message on its way to a client, and for inference the request that it answers,
// from its arrival on.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/infer_request.h"
#include "engine/response_channel.h"
#include "tensor/buffer.h"
#include "transport/compression.h"
#include "transport/message_reader.h"
#include "transport/session_memory.h"

namespace penstock {

class InferCall;
class OutQueue;
class Reply;

// A counted reference, within one thread.
class ReplyRef {
 public:
  ReplyRef() = default;
  explicit ReplyRef(Reply* reply);
  ReplyRef(const ReplyRef& other) : ReplyRef(other.reply_) {}
  ReplyRef(ReplyRef&& other) noexcept : reply_(std::exchange(other.reply_, nullptr)) {}
  ReplyRef& operator=(ReplyRef other) noexcept {
    std::swap(reply_, other.reply_);
    return *this;
  }
  ~ReplyRef();

  Reply* get() const { return reply_; }
  Reply* operator->() const { return reply_; }
  Reply& operator*() const { return *reply_; }
  explicit operator bool() const { return reply_ != nullptr; }
  // Gives the reference away as a plain pointer, which ReplyRef::Adopt takes back.
  Reply* Release() { return std::exchange(reply_, nullptr); }
  static ReplyRef Adopt(Reply* reply) {
    ReplyRef ref;
    ref.reply_ = reply;
    return ref;
  }

 private:
  Reply* reply_ = nullptr;
};

// One gRPC message, or several responses of one decoupled request, which came together.
//
// Lifecycle: for inference made with the request's message, ready once the request has its outcome;
// for other messages made with their bytes. Then Take until all of it was taken.
// Threading: confined to its I/O thread; while its request is with the engine nobody touches it.
// Ownership: counted (ReplyRef). Owns the request's message, which the request borrows, and the
// request, whose batch's output slab a large reply points into until it has been written.
class Reply {
 public:
  static constexpr size_t kPrefixBytes = 5;
  static std::array<uint8_t, kPrefixBytes> PrefixOf(bool is_compressed, size_t size);

  static void* operator new(size_t size, SessionMemory& memory);
  static void operator delete(void* block) { SessionMemory::Free(block); }
  static void operator delete(void* block, SessionMemory&) { SessionMemory::Free(block); }

  // An inference: `request`'s response when it is there.
  Reply(InferCall& call, RequestRef request, MessageBytes message)
      : call(&call), request(std::move(request)), message_(std::move(message)) {}
  // A message as it is.
  explicit Reply(Buffer bytes) : bytes_(std::move(bytes)), size_(bytes_.size()) {
    pieces_.push_back(bytes_.span());
    SetPrefix(/*is_compressed=*/false);
  }

  // Some of the responses to the request behind `whole`: each with its prefix, as they are sent.
  Reply(ReplyRef whole, std::shared_ptr<ResponseChannel> channel, MessageBytes responses,
        size_t count, size_t room_bytes);

  InferCall* call = nullptr;  // null once the call has gone
  RequestRef request;         // null once its outputs are encoded
  bool is_done = false;       // the request has its outcome, and that is:
  Status status;
  Reply* next = nullptr;      // in its ReplyList
  int64_t begun_ns = kNever;  // when its first byte was taken

  // A decoupled request's, whose responses are replies of their own.
  size_t unsent_parts = 0;     // of those
  bool ends_by_parts = false;  // it is done and has no message of its own
  Status failure;              // why responses could not be sent: none is, from that one on
  // Of such a part.
  const ReplyRef whole;                            // else null
  const std::shared_ptr<ResponseChannel> channel;  // gets the room back
  const size_t count = 1;                          // responses
  const size_t room_bytes = 0;

  std::span<const uint8_t> message() const { return message_.span(); }

  // Fixes the size of an inference's reply; `compression` is applied at once, and lets the request
  // go. RESOURCE_EXHAUSTED: larger than `max_bytes`; INTERNAL: than a protobuf message can be.
  Status MakeReady(size_t max_bytes, Compression compression, int level);

  // What is left to be taken, with the prefix.
  size_t left() const { return kPrefixBytes + size_ - taken_; }
  // Moves the next `size` bytes to `out`. REQUIRES: size <= left().
  void Take(size_t size, OutQueue* out);
  // Lets go of the batch that a small reply was to be encoded from: its client reads slowly.
  void EncodeNow();
  // Whether it is being taken, since then, from where its batch left it.
  bool IsHeldSince(int64_t before_ns) const {
    return begun_ns <= before_ns && request && !pieces_.empty();
  }
  // Copies what is left of such a reply, and lets go of the batch. REQUIRES: IsHeldSince, and
  // nothing refers to what was taken.
  void CopyRest();

 private:
  friend class ReplyRef;
  // From here on tensors are sent from where they lie.
  static constexpr size_t kLargeBytes = 32 << 10;

  void SetPrefix(bool is_compressed);
  void EncodePieces();
  void CopyOut(size_t size, OutQueue* out);

  uint32_t references_ = 0;
  MessageBytes message_;
  // The encoded reply is `pieces_`, one behind the other; none while it is not encoded. They borrow
  // from bytes_ and from the request's outputs.
  Buffer bytes_;
  std::vector<std::span<const uint8_t>> pieces_;
  size_t size_ = 0;
  size_t taken_ = 0;
  std::array<uint8_t, kPrefixBytes> prefix_{};
};

// The messages of a block, compressed, each behind a prefix that says so.
Result<Buffer> CompressBlock(const ResponseBlock& block, Compression compression, int level);

inline ReplyRef::ReplyRef(Reply* reply) : reply_(reply) {
  if (reply_ != nullptr) reply_->references_ += 1;
}

inline ReplyRef::~ReplyRef() {
  if (reply_ != nullptr && --reply_->references_ == 0) delete reply_;
}

// Replies in a row; each is in one list at a time.
// Threading: thread-compatible.
// Ownership: a reference on each.
class ReplyList {
 public:
  ReplyList() = default;
  ~ReplyList() {
    while (!empty()) PopFront();
  }
  ReplyList(const ReplyList&) = delete;
  ReplyList& operator=(const ReplyList&) = delete;

  bool empty() const { return first_ == nullptr; }
  Reply* front() const { return first_; }  // null where it is empty
  void Append(ReplyRef reply) {
    Reply* const added = reply.Release();
    added->next = nullptr;
    (first_ == nullptr ? first_ : last_->next) = added;
    last_ = added;
  }
  // REQUIRES: it is in this list.
  void Remove(Reply* removed) {
    Reply* before = nullptr;
    Reply* each = first_;
    for (; each != removed; each = each->next) before = each;
    (before == nullptr ? first_ : before->next) = removed->next;
    if (last_ == removed) last_ = before;
    const ReplyRef reference = ReplyRef::Adopt(removed);
  }
  ReplyRef PopFront() {
    ReplyRef popped = ReplyRef::Adopt(first_);
    first_ = first_->next;
    return popped;
  }

 private:
  Reply* first_ = nullptr;
  Reply* last_ = nullptr;  // of a list that is not empty
};

}  // namespace penstock
