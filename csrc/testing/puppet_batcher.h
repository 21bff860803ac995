// PuppetBatcher: a Batcher without threads, moved by hand, and requests that remember their end.

#pragma once

#include <atomic>
#include <cassert>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "batcher/batcher.h"
#include "testing/fake_clock.h"

namespace penstock {

// What PuppetRequests report: which ended, in which order, how.
// Threading: thread-safe.
class EndLog {
 public:
  struct End {
    int id;
    Status status;
  };

  void Add(int id, const Status& status) {
    MutexLock lock(mu_);
    ends_.push_back({id, status});
  }
  std::vector<End> ends() const {
    MutexLock lock(mu_);
    return ends_;
  }
  std::vector<int> ids() const {
    std::vector<int> ids;
    for (const End& end : ends()) ids.push_back(end.id);
    return ids;
  }

 private:
  mutable Mutex mu_;
  std::vector<End> ends_ GUARDED_BY(mu_);
};

// A request that computes nothing. Threading: as Request. Ownership: itself, by its references;
// borrows the log.
class PuppetRequest final : public Request {
 public:
  PuppetRequest(int id, EndLog* log) : id(id), log_(log) {}

  const int id;
  // How often its outcome was delivered, and what it was. Atomic: stress tests look while it runs.
  std::atomic<int> times_done{0};
  std::atomic<int> times_woken{0};
  Status outcome;

 private:
  void OnDone(const Status& status) noexcept override {
    outcome = status;
    times_done.fetch_add(1);
    if (log_ != nullptr) log_->Add(id, status);
  }
  void Wake() noexcept override { times_woken.fetch_add(1); }
  void Dispose() noexcept override { delete this; }

  EndLog* const log_;
};

// How a PuppetRequest is to be. Defaults: one row, no key, no time limit.
struct PuppetSpec {
  uint32_t rows = 1;
  BatchKey key = {};
  uint32_t priority = 0;
  int64_t timeout_us = 0;
  int64_t deadline_ns = kNever;
  bool is_background = false;
  uint64_t shared_bytes = 0;
  bool is_job = false;
};

// Threading: confined to the test's thread.
class PuppetBatcher {
 public:
  explicit PuppetBatcher(Batcher::Options options = {}) : batcher_(WithClock(std::move(options))) {}

  FakeClock& clock() { return clock_; }
  Batcher& batcher() { return batcher_; }
  EndLog& log() { return log_; }

  // A request that is not queued; ids count from 0.
  RequestRef Make(const PuppetSpec& spec = {}) {
    RequestRef ref(new PuppetRequest(next_id_++, &log_));
    ref->key = spec.key;
    ref->rows = spec.rows;
    ref->priority = spec.priority;
    ref->timeout_us = spec.timeout_us;
    ref->deadline_ns = spec.deadline_ns;
    ref->is_background = spec.is_background;
    ref->shared_bytes = spec.shared_bytes;
    ref->is_job = spec.is_job;
    return ref;
  }
  // A request that is queued. REQUIRES: it is accepted.
  RequestRef Queue(const PuppetSpec& spec = {}) {
    RequestRef ref = Make(spec);
    const Status status = batcher_.Enqueue(ref);
    assert(status.ok());
    return ref;
  }
  void QueueMany(size_t count, const PuppetSpec& spec = {}) {
    for (size_t i = 0; i < count; ++i) Queue(spec);
  }

  // The next batch, or one without requests when it is not time; `wait_until_ns()` then says when.
  Batch Next() {
    Batch batch;
    batcher_.TryNextBatch(&batch, &wait_until_ns_);
    return batch;
  }
  int64_t wait_until_ns() const { return wait_until_ns_; }

  void Finish(Batch* batch, const Status& outcome = Status()) {
    std::vector<Status> outcomes(batch->requests.size(), outcome);
    batcher_.Finish(batch, outcomes);
  }

  static PuppetRequest& Of(const RequestRef& ref) { return static_cast<PuppetRequest&>(*ref); }
  static std::vector<int> Ids(const Batch& batch) {
    std::vector<int> ids;
    for (const RequestRef& ref : batch.requests) ids.push_back(Of(ref).id);
    return ids;
  }

 private:
  Batcher::Options WithClock(Batcher::Options options) {
    options.clock = &clock_;
    return options;
  }

  FakeClock clock_;
  EndLog log_;
  Batcher batcher_;
  int next_id_ = 0;
  int64_t wait_until_ns_ = kNever;
};

}  // namespace penstock
