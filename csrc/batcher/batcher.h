// Batcher: holds the requests of one version and hands idle instances their next batch.
//
// It knows no backend, no wire, and has no thread of its own: an instance that is idle calls
// NextBatch and waits there; a timer somewhere else calls ExpireDue when the observer has been told
// to.
//
//   Batcher batcher(options);
//   submitter:  batcher.Enqueue(request)                        -> accepted, or why not
//   instance:   while (batcher.NextBatch(&batch)) { run it; batcher.Finish(&batch, outcomes); }
//   caller left: batcher.Cancel(request)

#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "batcher/ordered_release.h"
#include "batcher/policy.h"
#include "batcher/queue.h"
#include "batcher/request.h"

namespace penstock {

// The queue policy of one priority level (Triton's ModelQueuePolicy).
struct QueuePolicy {
  size_t max_queue_size = 0;            // requests; 0 = no bound of its own
  int64_t default_timeout_us = 0;       // 0 = none
  bool delays_on_timeout = false;       // DELAY: run it after all others, instead of REJECT
  bool honours_request_timeout = true;  // a request's own timeout counts where it is shorter
};

// A batch under way. Reuse one object: its vector keeps its capacity.
struct Batch {
  std::vector<RequestRef> requests;  // background requests behind the others
  uint32_t rows = 0;
  CloseReason reason = CloseReason::kIdleInstance;
  int64_t formed_ns = 0;

  bool has_background() const { return !requests.empty() && requests.back()->is_background; }
};

struct RequestCounters {
  size_t pending = 0;         // queued now
  int64_t oldest_age_ns = 0;  // how long the oldest of them has waited; 0 = none
  size_t running = 0;         // in a batch now
  uint64_t accepted = 0;
  uint64_t queue_full = 0;
  uint64_t queue_timeouts = 0;
  uint64_t deadlines = 0;       // refused or expired by the caller's deadline
  uint64_t expired_queued = 0;  // of those, how many had been queued
  uint64_t cancelled_queued = 0;
  uint64_t cancelled_running = 0;
  uint64_t drained = 0;  // failed in the queue because a drain ran out of time
};

// What is counted of requests leaves out background requests, which have counters of their own.
struct BatcherCounters : RequestCounters {
  RequestCounters background;
  std::array<uint64_t, kCloseReasonCount> closed{};  // batches, those of background requests too
};

// When Enqueue tells an idle instance.
enum class Wake { kNow, kLater };

// Whether a thread that asks for a batch runs background requests too: an instance's own does.
enum class Background { kRuns, kLeaves };

// Told when a queued request will expire earlier than any told before, so that a timer can be set.
// Threading: called on submitters' threads, no lock held.
// Ownership: outlives the Batcher.
class ExpiryObserver {
 public:
  virtual ~ExpiryObserver() = default;
  virtual void OnEarlierExpiry(int64_t expiry_ns) = 0;
};

// Background requests (Request::is_background) have a queue of their own and run in what the others
// leave, see DecideShared. While others never stop they wait, for ever if need be: their deadlines,
// Cancel, Close and FailQueued complete them at once all the same.
//
// Threading: thread-safe.
// Ownership: holds references on queued requests; borrows the clock and the observer, which outlive
// it.
// Lifecycle: Enqueue/NextBatch/Cancel/ExpireDue until Close; after it Enqueue refuses, NextBatch
// hands out what others have queued, then returns false. FailQueued empties the queue.
// Blocking: NextBatch waits for work. Nothing else blocks.
class Batcher {
 public:
  struct Options {
    BatchPolicy policy;
    std::vector<QueuePolicy> levels = {QueuePolicy{}};  // one per priority level, highest first
    uint32_t default_priority = 1;                      // for requests that give none: 1 = highest
    QueuePolicy background;                             // of background requests
    // So many background requests run at a time, and a batch more at most; 0 = no bound. A model
    // that keeps requests beyond their batch would take in all that wait.
    size_t max_background_running = 0;
    bool preserves_ordering = false;
    Clock* clock = &Clock::System();
    ExpiryObserver* expiry_observer = nullptr;
  };

  explicit Batcher(Options options);
  // REQUIRES: no thread is in NextBatch. Requests still queued are failed first.
  ~Batcher();
  Batcher(const Batcher&) = delete;
  Batcher& operator=(const Batcher&) = delete;

  // Queues `request`. On refusal it is untouched and the caller completes it: UNAVAILABLE "Exceeds
  // maximum queue size", DEADLINE_EXCEEDED where its deadline has passed, CANCELLED where its
  // caller has gone, or FAILED_PRECONDITION after Close (look the version up again: there may be a
  // newer one).
  // REQUIRES: 1 <= request->rows <= max_batch_size, and BackgroundRows for a background request.
  // With Wake::kLater nobody is told: Flush follows, when the submitter has queued all it has at
  // hand, and what one turn of its loop brought in can form one batch.
  Status Enqueue(const RequestRef& request, Wake wake = Wake::kNow);
  // Wakes an instance for what Enqueue(..., Wake::kLater) queued.
  void Flush();

  // Waits until there is a batch to run, and takes it. False: closed and nothing is left, or the
  // caller, `who` (any address of its own), was dismissed.
  bool NextBatch(Batch* batch, const void* who = nullptr);
  // Has `who` take no further batch: its NextBatch returns false, at once where it waits. What is
  // queued is left to the others, of whom there is one at least.
  void Dismiss(const void* who);
  // NextBatch without the wait, for schedulers without threads. False: not now; `*wait_until_ns`
  // then says when to ask again (kNever = after the next Enqueue).
  bool TryNextBatch(Batch* batch, int64_t* wait_until_ns,
                    Background background = Background::kRuns);

  // `batch` has run: its requests end, and outcomes[i] is what requests[i] is to get, CANCELLED if
  // it was cancelled meanwhile; cancelling it from here on changes nothing. Deliver follows, once
  // the outcomes are counted. With EndOne the only way a batched request ends.
  void End(const Batch& batch, std::span<Status> outcomes);
  // Delivers those outcomes and clears the batch.
  void Deliver(Batch* batch, std::span<const Status> outcomes);
  // Both.
  void Finish(Batch* batch, std::span<Status> outcomes) {
    End(*batch, outcomes);
    Deliver(batch, outcomes);
  }
  // The same for a request that its batch did not end with, and was taken out of it. `outcome`
  // becomes what it is to get.
  void EndOne(Request& request, Status* outcome);
  void DeliverOne(Request& request, const Status& outcome);

  // The caller of `request` has gone. Queued: completed CANCELLED at once, or DEADLINE_EXCEEDED if
  // that is why. Running: when its batch ends, or it is finished.
  void Cancel(Request& request);

  // Completes what has expired by now; returns the next expiry (kNever = none).
  int64_t ExpireDue();

  // Background requests that are queued end with `background`: however many they are, a drain is
  // not held up by them.
  void Close(const Status& background = Unavailable("the model version is being drained"));
  // Completes everything queued with `status`.
  void FailQueued(const Status& status);
  // Closes, and gives back what is queued, as it was before Enqueue, oldest first: for a queue whose
  // requests another one is to run.
  std::vector<RequestRef> TakeBack();
  // Gives back those of them that `is_meant`, without closing. It is called under the lock, and
  // looks at the request only.
  std::vector<RequestRef> TakeBackIf(const std::function<bool(const Request&)>& is_meant);

  BatcherCounters counters() const;

 private:
  struct Ended {
    RequestRef request;
    Status outcome;
  };

  const QueuePolicy& PolicyOf(const Request& request) const {
    return request.is_background ? options_.background : options_.levels[request.level_ / 2];
  }
  // Null for background requests: they wait long, and would hold up others.
  OrderedRelease* OrderOf(const Request& request) const {
    return request.is_background ? nullptr : ordered_.get();
  }
  RequestQueue& QueueOf(const Request& request) REQUIRES(mu_) {
    return request.is_background ? background_ : queue_;
  }
  RequestCounters& CountersOf(const Request& request) REQUIRES(mu_) {
    return request.is_background ? counters_.background : counters_;
  }
  bool HasBackgroundLocked() const REQUIRES(mu_);
  Decision DecideLocked(int64_t now_ns, Background background) const REQUIRES(mu_);
  void TakeLocked(const Decision& decision, Batch* batch) REQUIRES(mu_);
  int64_t NextExpiryLocked() const REQUIRES(mu_);
  Status AcceptLocked(const RequestRef& request, int64_t now_ns, int64_t* expiry_ns) REQUIRES(mu_);
  void ArmExpiry(Request& request, int64_t now_ns) const;
  bool FormLocked(Batch* batch, int64_t now_ns, int64_t* wait_until_ns, Background background)
      REQUIRES(mu_);
  void CollectExpiredLocked(int64_t now_ns, std::vector<Ended>* ended) REQUIRES(mu_);
  void CollectExpiredOf(RequestQueue& queue, int64_t now_ns, std::vector<Ended>* ended)
      REQUIRES(mu_);
  void CollectQueuedOf(RequestQueue& queue, const Status& status, std::vector<Ended>* ended)
      REQUIRES(mu_);
  void WakeForWorkLocked(int64_t now_ns) REQUIRES(mu_);
  bool IsDismissedLocked(const void* who, int64_t now_ns) REQUIRES(mu_);
  RequestRef EndQueuedLocked(Request& request) REQUIRES(mu_);
  std::vector<RequestRef> TakeBackLocked(const std::function<bool(const Request&)>& is_meant)
      REQUIRES(mu_);
  void EndRunningLocked(Request& request, Status* outcome) REQUIRES(mu_);
  void DeliverRun(Request& request, const Status& outcome) EXCLUDES(mu_);
  void DeliverUnrun(std::vector<Ended>& ended) EXCLUDES(mu_);
  void MoveLocked(Request& request, Request::State to) REQUIRES(mu_);

  // Constant after construction.
  const Options options_;
  const BatchPolicy background_policy_;            // of batches of background requests alone
  const std::unique_ptr<OrderedRelease> ordered_;  // null unless preserves_ordering

  mutable Mutex mu_;
  CondVar work_;  // an instance may have something to do
  // Guarded by mu_.
  RequestQueue queue_ GUARDED_BY(mu_);
  RequestQueue background_ GUARDED_BY(mu_);
  bool is_closed_ GUARDED_BY(mu_) = false;
  size_t waiting_ GUARDED_BY(mu_) = 0;        // threads in NextBatch with nothing to do
  int64_t wake_ns_ GUARDED_BY(mu_) = kNever;  // the earliest time at which one of them looks again
  int64_t told_expiry_ns_ GUARDED_BY(mu_) = kNever;     // what the observer was told last
  std::vector<const void*> dismissed_ GUARDED_BY(mu_);  // and still to be told
  BatcherCounters counters_ GUARDED_BY(mu_);
};

}  // namespace penstock
