// gRPC's framing: length-prefixed messages out of the bytes of a stream.
//
// Grammar (gRPC's PROTOCOL-HTTP2.md):
//   message = compressed(1 byte: 0 | 1) length(4 bytes, big-endian) bytes(length)

#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/status.h"
#include "memory/host_pool.h"
#include "tensor/buffer.h"

namespace penstock {

// How many bytes of requests all connections together may hold.
// Threading: thread-safe.
class ByteBudget {
 public:
  // `max_bytes` 0 = no bound. `held` counts, and is somebody else's to show.
  ByteBudget(size_t max_bytes, std::atomic<uint64_t>& held) : max_bytes_(max_bytes), held_(held) {}

  bool Take(size_t bytes) {
    const uint64_t before = held_.fetch_add(bytes, std::memory_order_relaxed);
    if (max_bytes_ == 0 || before + bytes <= max_bytes_) return true;
    Give(bytes);
    return false;
  }
  void Give(size_t bytes) { held_.fetch_sub(bytes, std::memory_order_relaxed); }
  size_t max_bytes() const { return max_bytes_; }

 private:
  const size_t max_bytes_;
  std::atomic<uint64_t>& held_;
};

// What a call ends with that finds it used up.
Status ByteBudgetExceeded(const ByteBudget& budget);

// The bytes of one message, in one piece, and their part of the budget. The end is aligned to
// HostPool::kAlignment: raw tensor contents come last, and a backend may take them where they are.
// Threading: thread-compatible.
class MessageBytes {
 public:
  MessageBytes() = default;
  MessageBytes(size_t size, ByteBudget& budget);
  // What was not received but made: decompressed.
  MessageBytes(Buffer storage, ByteBudget& budget);
  // The first `size` bytes of what may be larger.
  MessageBytes(Buffer storage, size_t size, ByteBudget& budget);
  MessageBytes(MessageBytes&& other) noexcept { Swap(other); }
  MessageBytes& operator=(MessageBytes&& other) noexcept {
    MessageBytes taken(std::move(other));
    Swap(taken);
    return *this;
  }
  ~MessageBytes() {
    if (held_ != 0) budget_->Give(held_);
  }

  std::span<const uint8_t> span() const { return bytes_; }
  std::span<uint8_t> span() { return bytes_; }
  // Takes what `received` bytes of it cost; false: the budget is used up.
  bool HoldFor(size_t received);
  // Takes what all of its memory costs, with what is left empty.
  bool HoldAll() { return Hold(storage_.size()); }

 private:
  bool Hold(size_t wanted);
  void Swap(MessageBytes& other) noexcept {
    std::swap(storage_, other.storage_);
    std::swap(bytes_, other.bytes_);
    std::swap(budget_, other.budget_);
    std::swap(held_, other.held_);
  }

  Buffer storage_;
  std::span<uint8_t> bytes_;
  ByteBudget* budget_ = nullptr;
  size_t held_ = 0;
};

// Threading: confined to the I/O thread of its connection.
// Ownership: owns the message under way; borrows the budget.
class MessageReader {
 public:
  struct Message {
    MessageBytes bytes;
    bool is_compressed = false;
  };

  MessageReader(size_t max_message_bytes, ByteBudget& budget)
      : max_message_bytes_(max_message_bytes), budget_(&budget) {}

  // Takes bytes off the front of `data`. True: `*message` is complete, and there may be more in
  // `data`. RESOURCE_EXHAUSTED: the message is over its limit, or the budget is used up; INTERNAL:
  // the flag is neither 0 nor 1. After a failure nothing more can be read.
  Result<bool> Read(std::span<const uint8_t>* data, Message* message);

  // Forgets the message under way, and gives back what it held.
  void Reset() {
    message_ = Message();
    prefix_size_ = received_ = 0;
  }
  // Whether the stream may end here.
  bool is_between_messages() const { return prefix_size_ == 0; }

 private:
  static constexpr size_t kPrefixBytes = 5;

  Status BeginMessage();

  // Constant after construction.
  size_t max_message_bytes_;
  ByteBudget* budget_;

  std::array<uint8_t, kPrefixBytes> prefix_{};
  size_t prefix_size_ = 0;  // 0 = between messages
  Message message_;
  size_t received_ = 0;
};

}  // namespace penstock
