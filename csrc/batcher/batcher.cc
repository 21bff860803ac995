#include "batcher/batcher.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace penstock {
namespace {

// How many microseconds `request` may wait under `policy`; 0 = for ever. The request's own timeout
// may only shorten the model's.
int64_t TimeoutUs(const QueuePolicy& policy, const Request& request) {
  const int64_t own_us = policy.honours_request_timeout ? request.timeout_us : 0;
  if (own_us <= 0) return policy.default_timeout_us;
  if (policy.default_timeout_us == 0) return own_us;
  return std::min(own_us, policy.default_timeout_us);
}

int64_t AddClamped(int64_t now_ns, int64_t delta_us) {
  int64_t delta_ns = 0;
  int64_t sum = 0;
  if (__builtin_mul_overflow(delta_us, int64_t{1000}, &delta_ns)) return kNever;
  if (__builtin_add_overflow(now_ns, delta_ns, &sum)) return kNever;
  return sum;
}

BatchPolicy BackgroundPolicy(BatchPolicy policy) {
  policy.max_batch_size = BackgroundRows(policy);
  policy.preferred_batch_sizes.clear();
  return policy;
}

}  // namespace

Batcher::Batcher(Options options)
    : options_(std::move(options)),
      background_policy_(BackgroundPolicy(options_.policy)),
      ordered_(options_.preserves_ordering ? std::make_unique<OrderedRelease>() : nullptr),
      queue_(2 * options_.levels.size()),
      background_(2) {
  assert(!options_.levels.empty());
  assert(options_.default_priority >= 1 && options_.default_priority <= options_.levels.size());
  assert(options_.policy.max_batch_size >= 1);
}

Batcher::~Batcher() { FailQueued(Unavailable("the model version is gone")); }

Status Batcher::Enqueue(const RequestRef& request, Wake wake) {
  int64_t told_ns = kNever;
  {
    MutexLock lock(mu_);
    const int64_t now_ns = options_.clock->NowNs();
    PENSTOCK_RETURN_IF_ERROR(AcceptLocked(request, now_ns, &told_ns));
    if (wake == Wake::kNow) WakeForWorkLocked(now_ns);
  }
  if (told_ns != kNever && options_.expiry_observer != nullptr) {
    options_.expiry_observer->OnEarlierExpiry(told_ns);
  }
  return Status::Ok();
}

void Batcher::Flush() {
  MutexLock lock(mu_);
  if (!queue_.empty() || !background_.empty()) WakeForWorkLocked(options_.clock->NowNs());
}

Status Batcher::AcceptLocked(const RequestRef& request, int64_t now_ns, int64_t* told_ns) {
  assert(request->rows >= 1 && request->rows <= options_.policy.max_batch_size);
  assert(!request->is_background || request->rows <= background_policy_.max_batch_size);
  if (is_closed_) return FailedPrecondition("the model version is being drained");
  if (request->is_cancelled()) return Cancelled("");
  RequestCounters& counters = CountersOf(*request);
  if (request->deadline_ns <= now_ns) {
    counters.deadlines += 1;
    return DeadlineExceeded("Deadline Exceeded");
  }
  const bool has_level = request->priority >= 1 && request->priority <= options_.levels.size();
  const uint32_t priority = has_level ? request->priority : options_.default_priority;
  request->level_ = request->is_background ? 0 : 2 * (priority - 1);
  const QueuePolicy& policy = PolicyOf(*request);
  RequestQueue& queue = QueueOf(*request);
  const size_t queued = queue.level_size(request->level_) + queue.level_size(request->level_ + 1);
  if (policy.max_queue_size != 0 && queued >= policy.max_queue_size && !request->is_job) {
    counters.queue_full += 1;
    return Unavailable("Exceeds maximum queue size");
  }
  request->enqueue_ns_ = now_ns;
  ArmExpiry(*request, now_ns);
  queue.MakeRoom(*request);  // what may throw comes before what changes anything
  if (OrderedRelease* const order = OrderOf(*request)) order->Add(*request);
  MoveLocked(*request, Request::State::kQueued);
  queue.Push(request);
  counters.accepted += 1;
  if (request->expiry_ns_ < told_expiry_ns_) *told_ns = told_expiry_ns_ = request->expiry_ns_;
  return Status::Ok();
}

void Batcher::ArmExpiry(Request& request, int64_t now_ns) const {
  const int64_t timeout_us = TimeoutUs(PolicyOf(request), request);
  const int64_t timeout_at_ns = timeout_us == 0 ? kNever : AddClamped(now_ns, timeout_us);
  request.expires_by_timeout_ = timeout_at_ns < request.deadline_ns;
  request.expiry_ns_ = std::min(timeout_at_ns, request.deadline_ns);
}

// Wakes one instance if there is something for it to do now, or to wait for sooner than it does.
void Batcher::WakeForWorkLocked(int64_t now_ns) {
  if (waiting_ == 0) return;
  const Decision decision = DecideLocked(now_ns, Background::kRuns);
  if (decision.close || decision.wait_until_ns < wake_ns_) work_.NotifyOne();
}

// Whoever leaves may have been woken for a batch, or may have been the one to wait for its delay.
bool Batcher::IsDismissedLocked(const void* who, int64_t now_ns) {
  if (std::erase(dismissed_, who) == 0) return false;
  WakeForWorkLocked(now_ns);
  return true;
}

void Batcher::Dismiss(const void* who) {
  MutexLock lock(mu_);
  dismissed_.push_back(who);
  work_.NotifyAll();
}

bool Batcher::NextBatch(Batch* batch, const void* who) {
  std::vector<Ended> ended;
  for (;;) {
    {
      MutexLock lock(mu_);
      const int64_t now_ns = options_.clock->NowNs();
      if (!dismissed_.empty() && IsDismissedLocked(who, now_ns)) return false;
      CollectExpiredLocked(now_ns, &ended);
      int64_t wait_until_ns = kNever;
      if (ended.empty()) {
        if (FormLocked(batch, now_ns, &wait_until_ns, Background::kRuns)) return true;
        if (is_closed_) return false;
        waiting_ += 1;
        wake_ns_ = std::min(wake_ns_, wait_until_ns);
        options_.clock->WaitUntil(work_, mu_, wait_until_ns);
        waiting_ -= 1;
        wake_ns_ =
            kNever;  // the others, if any, wake at their own time; at worst one wakes too often
        continue;
      }
    }
    DeliverUnrun(ended);
  }
}

bool Batcher::TryNextBatch(Batch* batch, int64_t* wait_until_ns, Background background) {
  std::vector<Ended> ended;
  bool formed = false;
  *wait_until_ns = kNever;
  {
    MutexLock lock(mu_);
    const int64_t now_ns = options_.clock->NowNs();
    CollectExpiredLocked(now_ns, &ended);
    formed = FormLocked(batch, now_ns, wait_until_ns, background);
  }
  DeliverUnrun(ended);
  return formed;
}

bool Batcher::FormLocked(Batch* batch, int64_t now_ns, int64_t* wait_until_ns,
                         Background background) {
  const Decision decision = DecideLocked(now_ns, background);
  *wait_until_ns = decision.wait_until_ns;
  if (!decision.close) return false;
  TakeLocked(decision, batch);
  for (const RequestRef& request : batch->requests) {
    MoveLocked(*request, Request::State::kRunning);
    CountersOf(*request).running += 1;
  }
  batch->reason = decision.reason;
  batch->formed_ns = now_ns;
  counters_.closed[static_cast<size_t>(decision.reason)] += 1;
  WakeForWorkLocked(now_ns);  // what is left may be a batch for another instance
  return true;
}

Decision Batcher::DecideLocked(int64_t now_ns, Background background) const {
  Candidate candidate = queue_.Look(options_.policy);
  candidate.is_draining = is_closed_;
  if (background == Background::kLeaves || !HasBackgroundLocked()) {
    return Decide(options_.policy, candidate, now_ns);
  }
  const Candidate waiting = queue_.empty() ? background_.Look(background_policy_)
                                           : Candidate{.rows = background_.front()->rows};
  return DecideShared(options_.policy, candidate, waiting, now_ns);
}

// Whether background requests are queued, and may run.
bool Batcher::HasBackgroundLocked() const {
  const size_t most = options_.max_background_running;
  return !background_.empty() && (most == 0 || counters_.background.running < most);
}

void Batcher::TakeLocked(const Decision& decision, Batch* batch) {
  batch->requests.clear();
  batch->rows = decision.rows;
  if (decision.reason == CloseReason::kBackground) {
    background_.Take(decision.rows, &batch->requests);
    return;
  }
  queue_.Take(decision.rows, &batch->requests);
  if (decision.background_room == 0) return;
  batch->rows +=
      background_.TakeFitting(batch->requests[0]->key, decision.background_room, &batch->requests);
}

void Batcher::CollectExpiredLocked(int64_t now_ns, std::vector<Ended>* ended) {
  CollectExpiredOf(queue_, now_ns, ended);
  CollectExpiredOf(background_, now_ns, ended);
}

// Under the DELAY policy a request whose timeout has passed goes behind the others of its priority;
// only the caller's deadline ends it then.
void Batcher::CollectExpiredOf(RequestQueue& queue, int64_t now_ns, std::vector<Ended>* ended) {
  while (queue.next_expiry_ns() <= now_ns) {
    Request& request = *queue.next_to_expire();
    RequestCounters& counters = CountersOf(request);
    if (!request.expires_by_timeout_) {
      counters.deadlines += 1;
      counters.expired_queued += 1;
      ended->push_back({EndQueuedLocked(request), DeadlineExceeded("Deadline Exceeded")});
    } else if (PolicyOf(request).delays_on_timeout) {
      request.expires_by_timeout_ = false;
      queue.Move(request, request.level_ | 1, request.deadline_ns);
    } else {
      counters.queue_timeouts += 1;
      ended->push_back({EndQueuedLocked(request), Unavailable("Request timeout expired")});
    }
  }
}

void Batcher::End(const Batch& batch, std::span<Status> outcomes) {
  assert(outcomes.size() == batch.requests.size());
  MutexLock lock(mu_);
  for (size_t i = 0; i < outcomes.size(); ++i) EndRunningLocked(*batch.requests[i], &outcomes[i]);
}

void Batcher::Deliver(Batch* batch, std::span<const Status> outcomes) {
  for (size_t i = 0; i < outcomes.size(); ++i) DeliverRun(*batch->requests[i], outcomes[i]);
  for (const RequestRef& request : batch->requests) request->Wake();
  batch->requests.clear();
}

void Batcher::EndOne(Request& request, Status* outcome) {
  MutexLock lock(mu_);
  EndRunningLocked(request, outcome);
  // Its end may have made room; a batch's instance asks for the next one by itself.
  if (request.is_background) WakeForWorkLocked(options_.clock->NowNs());
}

void Batcher::DeliverOne(Request& request, const Status& outcome) {
  DeliverRun(request, outcome);
  request.Wake();
}

void Batcher::EndRunningLocked(Request& request, Status* outcome) {
  MoveLocked(request, Request::State::kDone);
  RequestCounters& counters = CountersOf(request);
  counters.running -= 1;
  if (!request.is_cancelled()) return;
  counters.cancelled_running += 1;
  *outcome = Cancelled("");
}

void Batcher::DeliverRun(Request& request, const Status& outcome) {
  if (OrderedRelease* const order = OrderOf(request)) {
    order->Finish(request, outcome);
  } else {
    request.OnDone(outcome);
  }
}

void Batcher::Cancel(Request& request) {
  std::vector<Ended> ended;
  {
    MutexLock lock(mu_);
    if (request.state_ == Request::State::kDone) return;
    request.is_cancelled_.store(true, std::memory_order_relaxed);
    if (request.state_ == Request::State::kQueued) {
      const int64_t now_ns = options_.clock->NowNs();
      const bool is_late = request.deadline_ns <= now_ns;
      RequestCounters& counters = CountersOf(request);
      (is_late ? counters.deadlines : counters.cancelled_queued) += 1;
      counters.expired_queued += is_late ? 1 : 0;
      ended.push_back({EndQueuedLocked(request),
                       is_late ? DeadlineExceeded("Deadline Exceeded") : Cancelled("")});
      WakeForWorkLocked(now_ns);
    }
  }
  if (ended.empty()) request.OnCancelled();
  DeliverUnrun(ended);
}

int64_t Batcher::ExpireDue() {
  std::vector<Ended> ended;
  int64_t next_ns = kNever;
  {
    MutexLock lock(mu_);
    const int64_t now_ns = options_.clock->NowNs();
    const bool is_due = NextExpiryLocked() <= now_ns;
    CollectExpiredLocked(now_ns, &ended);
    if (is_due) WakeForWorkLocked(now_ns);  // those who stay may make a batch now
    next_ns = told_expiry_ns_ = NextExpiryLocked();
  }
  DeliverUnrun(ended);
  return next_ns;
}

int64_t Batcher::NextExpiryLocked() const {
  return std::min(queue_.next_expiry_ns(), background_.next_expiry_ns());
}

void Batcher::Close(const Status& background) {
  std::vector<Ended> ended;
  {
    MutexLock lock(mu_);
    is_closed_ = true;
    CollectQueuedOf(background_, background, &ended);
    work_.NotifyAll();
  }
  DeliverUnrun(ended);
}

void Batcher::FailQueued(const Status& status) {
  std::vector<Ended> ended;
  {
    MutexLock lock(mu_);
    CollectQueuedOf(queue_, status, &ended);
    CollectQueuedOf(background_, status, &ended);
    work_.NotifyAll();
  }
  DeliverUnrun(ended);
}

std::vector<RequestRef> Batcher::TakeBack() {
  MutexLock lock(mu_);
  std::vector<RequestRef> taken = TakeBackLocked([](const Request&) { return true; });
  is_closed_ = true;
  return taken;
}

std::vector<RequestRef> Batcher::TakeBackIf(const std::function<bool(const Request&)>& is_meant) {
  MutexLock lock(mu_);
  return TakeBackLocked(is_meant);
}

std::vector<RequestRef> Batcher::TakeBackLocked(
    const std::function<bool(const Request&)>& is_meant) {
  std::vector<RequestRef> taken;
  taken.reserve(queue_.size() + background_.size());
  for (RequestQueue* const queue : {&queue_, &background_}) {
    for (Request* const request : queue->All()) {
      if (!is_meant(*request)) continue;
      MoveLocked(*request, Request::State::kNew);
      taken.push_back(queue->Remove(*request));
    }
  }
  return taken;
}

void Batcher::CollectQueuedOf(RequestQueue& queue, const Status& status,
                              std::vector<Ended>* ended) {
  while (Request* request = queue.front()) {
    CountersOf(*request).drained += 1;
    ended->push_back({EndQueuedLocked(*request), status});
  }
}

BatcherCounters Batcher::counters() const {
  MutexLock lock(mu_);
  const int64_t now_ns = options_.clock->NowNs();
  const auto age_ns = [now_ns](const RequestQueue& queue) {
    return queue.empty() ? 0 : std::max<int64_t>(now_ns - queue.oldest_enqueue_ns(), 0);
  };
  BatcherCounters counters = counters_;
  counters.pending = queue_.size();
  counters.oldest_age_ns = age_ns(queue_);
  counters.background.pending = background_.size();
  counters.background.oldest_age_ns = age_ns(background_);
  return counters;
}

RequestRef Batcher::EndQueuedLocked(Request& request) {
  MoveLocked(request, Request::State::kDone);
  return QueueOf(request).Remove(request);
}

void Batcher::DeliverUnrun(std::vector<Ended>& ended) {
  for (Ended& end : ended) {
    end.request->OnDone(end.outcome);
    end.request->Wake();
    if (OrderedRelease* const order = OrderOf(*end.request)) order->Skip(*end.request);
  }
  ended.clear();
}

void Batcher::MoveLocked(Request& request, Request::State to) {
  assert(Request::CanMove(request.state_, to));
  request.state_ = to;
}

}  // namespace penstock
