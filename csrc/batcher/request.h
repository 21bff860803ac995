// Request: one inference waiting for its turn, as the batcher sees it.
//
// The batcher needs a key, a size, a priority and two times; what is to be computed and for whom is
// in the derived class (engine/infer_request.h).

#pragma once

#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace penstock {

class Batcher;

// Requests with equal keys may share a batch: the variable dimensions of each input, batch
// dimension left out, and which optional inputs are there. Empty for a model whose shapes are all
// fixed.
using BatchKey = std::vector<int64_t>;

// Position in one of the batcher's intrusive lists.
struct RequestLink {
  RequestLink* prev = nullptr;
  RequestLink* next = nullptr;
  class Request* request = nullptr;

  bool linked() const { return next != nullptr; }
};

// Lifecycle: kNew -> kQueued -> kRunning -> kDone, kQueued -> kDone (expired, cancelled, drained),
// kNew -> kDone (refused) and kQueued -> kNew (Batcher::TakeBack); see CanMove. OnDone is called once, by whoever moves it to kDone.
//
// Threading: fields above the bar are set by the submitter before Enqueue and read-only after; the
// state moves under the batcher's lock.
// Ownership: reference-counted (RequestRef), because a cancelling caller and the batch that runs it
// hold it at the same time; the last one out calls Dispose.
class Request {
 public:
  enum class State : uint8_t { kNew, kQueued, kRunning, kDone };
  static constexpr bool CanMove(State from, State to) {
    switch (from) {
      case State::kNew:
        return to == State::kQueued || to == State::kDone;
      case State::kQueued:
        return to == State::kRunning || to == State::kDone || to == State::kNew;
      case State::kRunning:
        return to == State::kDone;
      case State::kDone:
        return false;
    }
    return false;
  }

  BatchKey key;
  uint32_t rows = 1;
  uint64_t shared_bytes = 0;     // of inputs that its batch has yet to take memory for
  uint32_t priority = 0;         // 1 = highest; 0 or out of range = the model's default level
  int64_t timeout_us = 0;        // the request's own queue timeout; 0 = none given
  int64_t deadline_ns = kNever;  // the caller's deadline (gRPC), on the batcher's clock
  bool is_background = false;    // runs in what others leave: batch work; `priority` says nothing
  // Of a background request: the server's own, which joins no batch of others, lest its rows fail
  // theirs, and which no bound of the queue refuses.
  bool is_job = false;

  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;

  // True once the caller has gone; a running batch may skip its work.
  bool is_cancelled() const { return is_cancelled_.load(std::memory_order_relaxed); }
  // When it was accepted into the queue, on the batcher's clock.
  int64_t enqueue_ns() const { return enqueue_ns_; }

 protected:
  Request() { queue_link_.request = bucket_link_.request = this; }
  virtual ~Request() = default;

  // Delivers the outcome; the request's results are in the derived class when `status` is OK.
  // Called exactly once for every accepted request, with no lock held. Never blocks, never throws.
  virtual void OnDone(const Status& status) noexcept = 0;
  // Wakes whoever waits for the outcome; after OnDone, once all of a batch are delivered, so that a
  // batch costs its receiver one wake-up. Idempotent.
  virtual void Wake() noexcept = 0;
  // The caller of a running request has gone; is_cancelled() is true. With no lock held.
  virtual void OnCancelled() noexcept {}
  // The last reference has gone: destroy, or keep for the next use (after ResetForReuse).
  virtual void Dispose() noexcept = 0;
  void ResetForReuse();

 private:
  friend class Batcher;
  friend class RequestRef;
  friend class RequestQueue;
  friend class OrderedRelease;

  void Ref() { references_.fetch_add(1, std::memory_order_relaxed); }
  void Unref() {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) Dispose();
  }

  std::atomic<uint32_t> references_{0};
  std::atomic<bool> is_cancelled_{false};

  // Guarded by the batcher's lock from Enqueue on.
  State state_ = State::kNew;
  bool expires_by_timeout_ = false;  // expiry_ns_ is the queue timeout, not the caller's deadline
  uint32_t level_ = 0;
  int64_t enqueue_ns_ = 0;
  int64_t expiry_ns_ = kNever;
  size_t heap_index_ = SIZE_MAX;  // in RequestQueue's expiry heap
  RequestLink queue_link_;        // its level's list: arrival order over all keys
  RequestLink bucket_link_;       // its (key, level) list
  class Bucket* bucket_ = nullptr;
  uint64_t sequence_ = 0;     // arrival number, for preserve_ordering
  bool is_finished_ = false;  // guarded by OrderedRelease: outcome known, waiting for its turn
  Status outcome_;
};

// A counted reference to a Request.
class RequestRef {
 public:
  RequestRef() = default;
  explicit RequestRef(Request* request) : request_(request) {
    if (request_ != nullptr) request_->Ref();
  }
  RequestRef(const RequestRef& other) : RequestRef(other.request_) {}
  RequestRef(RequestRef&& other) noexcept : request_(std::exchange(other.request_, nullptr)) {}
  RequestRef& operator=(RequestRef other) noexcept {
    std::swap(request_, other.request_);
    return *this;
  }
  ~RequestRef() {
    if (request_ != nullptr) request_->Unref();
  }

  Request* get() const { return request_; }
  Request* operator->() const { return request_; }
  Request& operator*() const { return *request_; }
  explicit operator bool() const { return request_ != nullptr; }

 private:
  Request* request_ = nullptr;
};

}  // namespace penstock
