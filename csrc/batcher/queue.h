// RequestQueue: the requests of one version that wait, in three orders at once: by urgency and
// arrival, by key, and by expiry. Every operation is O(1), but for the expiry heap's O(log n) and
// for walks over the requests that form one batch.

#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "batcher/policy.h"
#include "batcher/request.h"

namespace penstock {

// A circular intrusive list.
// Ownership: borrows its members.
// Threading: as its owner's.
class RequestList {
 public:
  RequestList() { head_.prev = head_.next = &head_; }
  RequestList(const RequestList&) = delete;
  RequestList& operator=(const RequestList&) = delete;

  bool empty() const { return head_.next == &head_; }
  Request* front() const { return empty() ? nullptr : head_.next->request; }
  void PushBack(RequestLink& link);
  // The member after `link`, or nullptr at the end.
  Request* After(const RequestLink& link) const {
    return link.next == &head_ ? nullptr : link.next->request;
  }
  static void Unlink(RequestLink& link);

 private:
  RequestLink head_;  // head_.request stays null
};

// The queued requests of one key, one list per level.
class Bucket {
 public:
  explicit Bucket(size_t level_count) : lists(std::make_unique<RequestList[]>(level_count)) {}

  const BatchKey* key = nullptr;
  std::unique_ptr<RequestList[]> lists;
  size_t count = 0;
  uint64_t rows = 0;
  uint64_t shared_bytes = 0;
  size_t multi_row_count = 0;  // requests of more than one row
};

// Levels: two per priority, its normal queue and behind it the requests whose timeout has passed
// under the DELAY policy. Level 0 is the most urgent.
//
// Threading: thread-compatible; the Batcher's lock guards it.
// Ownership: holds a reference on each request.
class RequestQueue {
 public:
  explicit RequestQueue(size_t level_count);
  ~RequestQueue();
  RequestQueue(const RequestQueue&) = delete;
  RequestQueue& operator=(const RequestQueue&) = delete;

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  size_t level_size(uint32_t level) const { return level_sizes_[level]; }

  // Takes the memory that pushing `request` needs: the next Push, of it, cannot fail.
  void MakeRoom(const Request& request);
  // Adds `request` at the end of request->level_, armed with request->expiry_ns_. All or nothing:
  // throws std::bad_alloc with nothing done.
  void Push(const RequestRef& request);
  // Takes `request` out. REQUIRES: it is queued here.
  RequestRef Remove(Request& request);
  // Moves a request to the end of `level`, with a new expiry.
  void Move(Request& request, uint32_t level, int64_t expiry_ns);

  // What could be batched now with the most urgent request. O(1) when all rows are single, no size
  // is preferred and nothing is near max_shared_bytes, else a walk over one batch.
  Candidate Look(const BatchPolicy& policy) const;
  // Takes the first whole requests of the most urgent request's key that make up `rows` rows.
  void Take(uint32_t rows, std::vector<RequestRef>* out);
  // Takes the first whole requests of `key` as long as they fit into `room` rows; returns theirs.
  uint32_t TakeFitting(const BatchKey& key, uint32_t room, std::vector<RequestRef>* out);

  // The earliest expiry of all; kNever when nothing expires.
  int64_t next_expiry_ns() const { return heap_.empty() ? kNever : heap_[0]->expiry_ns_; }
  // The request that expires first. REQUIRES: next_expiry_ns() != kNever.
  Request* next_to_expire() const { return heap_[0]; }
  // The most urgent request, or nullptr.
  Request* front() const;
  // All of them, the most urgent first.
  std::vector<Request*> All() const;
  // When the request that waits longest was queued, of those at the head of their levels: behind one
  // whose timeout has passed (DELAY) an older one may stand. kNever when empty. O(levels).
  int64_t oldest_enqueue_ns() const;

 private:
  static constexpr size_t kMaxIdleBuckets = 64;

  struct KeyHash {
    size_t operator()(const BatchKey& key) const;
  };

  Bucket& BucketFor(const BatchKey& key);
  void Link(Request& request);
  void Unlink(Request& request);
  void FreeIfIdle(Bucket& bucket);
  Request* FirstIn(const Bucket& bucket) const;
  Request* NextInBucket(const Request& request) const;
  void Walk(const BatchPolicy& policy, const Request& first, Candidate* candidate) const;
  int64_t OldestIn(const Bucket& bucket) const;

  void HeapAdd(Request& request);
  void HeapRemove(Request& request);
  void HeapPlace(size_t index, Request* request);
  void SiftUp(size_t index);
  void SiftDown(size_t index);

  // Constant after construction.
  const size_t level_count_;

  std::unique_ptr<RequestList[]> levels_;
  std::vector<size_t> level_sizes_;
  size_t size_ = 0;
  std::unordered_map<BatchKey, Bucket, KeyHash> buckets_;
  Bucket* last_bucket_ = nullptr;  // where the last request went: most models have one key
  std::vector<Request*> heap_;     // binary min-heap by expiry_ns_; only requests that can expire
};

}  // namespace penstock
