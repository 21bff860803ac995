#include "batcher/queue.h"

#include <algorithm>
#include <cassert>

namespace penstock {

void RequestList::PushBack(RequestLink& link) {
  link.prev = head_.prev;
  link.next = &head_;
  head_.prev->next = &link;
  head_.prev = &link;
}

void RequestList::Unlink(RequestLink& link) {
  link.prev->next = link.next;
  link.next->prev = link.prev;
  link.prev = link.next = nullptr;
}

RequestQueue::RequestQueue(size_t level_count)
    : level_count_(level_count),
      levels_(std::make_unique<RequestList[]>(level_count)),
      level_sizes_(level_count, 0) {}

RequestQueue::~RequestQueue() {
  while (Request* request = front()) Remove(*request);
}

void RequestQueue::MakeRoom(const Request& request) {
  BucketFor(request.key);
  if (heap_.size() == heap_.capacity()) heap_.reserve(std::max<size_t>(2 * heap_.size(), 16));
}

void RequestQueue::Push(const RequestRef& request) {
  MakeRoom(*request);
  Link(*request);
  if (request->expiry_ns_ != kNever) HeapAdd(*request);
  request->Ref();  // the queue's own reference, given back by Remove
}

RequestRef RequestQueue::Remove(Request& request) {
  Unlink(request);
  if (request.heap_index_ != SIZE_MAX) HeapRemove(request);
  RequestRef ref(&request);
  request.Unref();
  return ref;
}

void RequestQueue::Move(Request& request, uint32_t level, int64_t expiry_ns) {
  if (request.heap_index_ != SIZE_MAX) HeapRemove(request);
  Unlink(request);
  request.level_ = level;
  request.expiry_ns_ = expiry_ns;
  Link(request);
  if (expiry_ns != kNever) HeapAdd(request);
}

Candidate RequestQueue::Look(const BatchPolicy& policy) const {
  const Request* first = front();
  if (first == nullptr) return {};
  const Bucket& bucket = *first->bucket_;
  Candidate candidate;
  candidate.other_key_waits = size_ > bucket.count;
  candidate.oldest_ns = OldestIn(bucket);
  if (!policy.combines_requests) {
    candidate.rows = first->rows;
    candidate.is_full = true;
  } else if (bucket.multi_row_count == 0 && policy.preferred_batch_sizes.empty() &&
             (policy.max_shared_bytes == 0 || bucket.shared_bytes <= policy.max_shared_bytes)) {
    candidate.rows = static_cast<uint32_t>(std::min<uint64_t>(bucket.rows, policy.max_batch_size));
    candidate.is_full = candidate.rows == policy.max_batch_size;
  } else {
    Walk(policy, *FirstIn(bucket), &candidate);
  }
  return candidate;
}

void RequestQueue::Walk(const BatchPolicy& policy, const Request& first,
                        Candidate* candidate) const {
  const auto& preferred = policy.preferred_batch_sizes;
  const uint64_t most_bytes = policy.max_shared_bytes != 0 ? policy.max_shared_bytes : UINT64_MAX;
  uint64_t bytes = 0;
  for (const Request* request = &first; request != nullptr; request = NextInBucket(*request)) {
    const bool has_room = bytes == 0 || request->shared_bytes <= most_bytes - bytes;
    if (!has_room || candidate->rows + request->rows > policy.max_batch_size) {
      candidate->is_full = true;
      return;
    }
    candidate->rows += request->rows;
    bytes = std::min(bytes + request->shared_bytes, most_bytes);
    if (std::binary_search(preferred.begin(), preferred.end(), candidate->rows)) {
      candidate->preferred_rows = candidate->rows;
    }
  }
  candidate->is_full = candidate->rows == policy.max_batch_size;
}

void RequestQueue::Take(uint32_t rows, std::vector<RequestRef>* out) {
  Request* next = FirstIn(*front()->bucket_);
  while (rows > 0) {
    assert(next != nullptr && next->rows <= rows);
    Request& request = *next;
    next = NextInBucket(request);
    rows -= request.rows;
    out->push_back(Remove(request));
  }
}

uint32_t RequestQueue::TakeFitting(const BatchKey& key, uint32_t room,
                                   std::vector<RequestRef>* out) {
  const auto found = buckets_.find(key);
  if (found == buckets_.end()) return 0;
  uint32_t taken = 0;
  Request* next = FirstIn(found->second);
  while (next != nullptr && !next->is_job && next->shared_bytes == 0 &&
         next->rows <= room - taken) {
    Request& request = *next;
    next = NextInBucket(request);
    taken += request.rows;
    out->push_back(Remove(request));
  }
  return taken;
}

Request* RequestQueue::front() const {
  if (size_ == 0) return nullptr;
  for (size_t level = 0; level < level_count_; ++level) {
    if (!levels_[level].empty()) return levels_[level].front();
  }
  return nullptr;
}

std::vector<Request*> RequestQueue::All() const {
  std::vector<Request*> all;
  all.reserve(size_);
  for (size_t level = 0; level < level_count_; ++level) {
    for (Request* next = levels_[level].front(); next != nullptr;
         next = levels_[level].After(next->queue_link_)) {
      all.push_back(next);
    }
  }
  return all;
}

int64_t RequestQueue::oldest_enqueue_ns() const {
  int64_t oldest_ns = kNever;
  for (size_t level = 0; level < level_count_; ++level) {
    const Request* first = levels_[level].front();
    if (first != nullptr) oldest_ns = std::min(oldest_ns, first->enqueue_ns_);
  }
  return oldest_ns;
}

size_t RequestQueue::KeyHash::operator()(const BatchKey& key) const {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a over 64-bit words, with a final mix
  for (const int64_t word : key) hash = (hash ^ static_cast<uint64_t>(word)) * 0x100000001b3;
  return hash ^ (hash >> 29);
}

Bucket& RequestQueue::BucketFor(const BatchKey& key) {
  if (last_bucket_ != nullptr && *last_bucket_->key == key) return *last_bucket_;
  const auto [it, inserted] = buckets_.try_emplace(key, level_count_);
  if (inserted) it->second.key = &it->first;
  last_bucket_ = &it->second;
  return it->second;
}

void RequestQueue::Link(Request& request) {
  Bucket& bucket = BucketFor(request.key);
  request.bucket_ = &bucket;
  bucket.lists[request.level_].PushBack(request.bucket_link_);
  bucket.count += 1;
  bucket.rows += request.rows;
  bucket.shared_bytes += request.shared_bytes;
  bucket.multi_row_count += request.rows > 1 ? 1 : 0;
  levels_[request.level_].PushBack(request.queue_link_);
  level_sizes_[request.level_] += 1;
  size_ += 1;
}

void RequestQueue::Unlink(Request& request) {
  Bucket& bucket = *request.bucket_;
  RequestList::Unlink(request.bucket_link_);
  RequestList::Unlink(request.queue_link_);
  request.bucket_ = nullptr;
  bucket.count -= 1;
  bucket.rows -= request.rows;
  bucket.shared_bytes -= request.shared_bytes;
  bucket.multi_row_count -= request.rows > 1 ? 1 : 0;
  level_sizes_[request.level_] -= 1;
  size_ -= 1;
  FreeIfIdle(bucket);
}

// Empty buckets are kept for their next request, but hostile clients may send any number of shapes.
void RequestQueue::FreeIfIdle(Bucket& bucket) {
  if (bucket.count != 0 || buckets_.size() <= kMaxIdleBuckets) return;
  if (last_bucket_ == &bucket) last_bucket_ = nullptr;
  buckets_.erase(buckets_.find(*bucket.key));
}

Request* RequestQueue::FirstIn(const Bucket& bucket) const {
  for (size_t level = 0; level < level_count_; ++level) {
    if (!bucket.lists[level].empty()) return bucket.lists[level].front();
  }
  return nullptr;
}

Request* RequestQueue::NextInBucket(const Request& request) const {
  const Bucket& bucket = *request.bucket_;
  if (Request* next = bucket.lists[request.level_].After(request.bucket_link_)) return next;
  for (size_t level = request.level_ + 1; level < level_count_; ++level) {
    if (!bucket.lists[level].empty()) return bucket.lists[level].front();
  }
  return nullptr;
}

int64_t RequestQueue::OldestIn(const Bucket& bucket) const {
  int64_t oldest_ns = kNever;
  for (size_t level = 0; level < level_count_; ++level) {
    const Request* first = bucket.lists[level].front();
    if (first != nullptr) oldest_ns = std::min(oldest_ns, first->enqueue_ns_);
  }
  return oldest_ns;
}

void RequestQueue::HeapAdd(Request& request) {
  heap_.push_back(&request);
  HeapPlace(heap_.size() - 1, &request);
  SiftUp(request.heap_index_);
}

void RequestQueue::HeapRemove(Request& request) {
  const size_t index = request.heap_index_;
  Request* last = heap_.back();
  heap_.pop_back();
  request.heap_index_ = SIZE_MAX;
  if (last == &request) return;
  HeapPlace(index, last);
  SiftUp(index);
  SiftDown(last->heap_index_);
}

void RequestQueue::HeapPlace(size_t index, Request* request) {
  heap_[index] = request;
  request->heap_index_ = index;
}

void RequestQueue::SiftUp(size_t index) {
  Request* request = heap_[index];
  while (index > 0) {
    const size_t parent = (index - 1) / 2;
    if (heap_[parent]->expiry_ns_ <= request->expiry_ns_) break;
    HeapPlace(index, heap_[parent]);
    index = parent;
  }
  HeapPlace(index, request);
}

void RequestQueue::SiftDown(size_t index) {
  Request* request = heap_[index];
  for (;;) {
    size_t child = 2 * index + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && heap_[child + 1]->expiry_ns_ < heap_[child]->expiry_ns_)
      ++child;
    if (request->expiry_ns_ <= heap_[child]->expiry_ns_) break;
    HeapPlace(index, heap_[child]);
    index = child;
  }
  HeapPlace(index, request);
}

}  // namespace penstock
