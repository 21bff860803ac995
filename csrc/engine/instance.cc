#include "engine/instance.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "base/strcat.h"
#include "engine/response_channel.h"

namespace penstock {

Instance::Instance(std::string name, std::unique_ptr<BackendInstance> backend,
                   Environment environment)
    : name_(std::move(name)),
      environment_(environment),
      may_run_here_(backend->runs_on_any_thread() && environment.spec.has_fixed_sizes()),
      answers_requests_(backend->answers_requests()),
      asked_(*backend),
      backend_(std::move(backend)),
      io_(environment.spec, *backend_) {}

void Instance::Execute(const Batch& batch, BatchTimes* times,
                       std::vector<Status>* outcomes) noexcept {
  const std::string_view what_threw = " threw while running a batch";
  outcomes->assign(batch.requests.size(), Status());
  Status status;
  try {
    status = ExecuteOrThrow(batch, times, *outcomes);
  } catch (const std::exception& error) {
    // The text may hold anything: it is for the log, not for clients.
    LogFailure(batch, error.what());
    status = Internal(StrCat(environment_.spec.DisplayName(), what_threw));
  } catch (...) {
    status = Internal(StrCat(environment_.spec.DisplayName(), what_threw));
  }
  io_.Clear();
  if (!status.ok()) times->end_ns = environment_.clock.NowNs();  // what threw took its time too
  if (answers_requests_) {
    answers_.Settle(batch, status, *times, *outcomes, &environment_.kept);
    return;
  }
  if (status.ok()) return;
  for (Status& outcome : *outcomes) {
    if (outcome.ok()) outcome = status;
  }
}

// Of a batch of one the line says which request it was.
void Instance::LogFailure(const Batch& batch, std::string_view text) const {
  const std::string version = std::to_string(environment_.spec.version);
  std::vector<LogField> about = {{"model", environment_.spec.model_name}, {"version", version}};
  if (batch.requests.size() == 1 && !AsInfer(batch.requests[0]).view.id.empty()) {
    about.push_back({"request_id", AsInfer(batch.requests[0]).view.id});
  }
  Log(LogLevel::kError, name_, text, about);
}

Status Instance::ExecuteOrThrow(const Batch& batch, BatchTimes* times, std::span<Status> outcomes) {
  const Clock& clock = environment_.clock;
  times->start_ns = times->gathered_ns = times->computed_ns = times->end_ns = clock.NowNs();
  io_.Gather(batch, outcomes);
  times->gathered_ns = times->computed_ns = times->end_ns = clock.NowNs();
  if (io_.rows() == 0) return Status::Ok();
  if (answers_requests_) return AnswerOrThrow(batch, times, outcomes);
  const auto outputs = std::make_shared<BatchOutputs>();
  const Status executed =
      io_.has_parts()
          ? backend_->ExecuteParts(io_.inputs(), io_.wanted(), io_.parts(), &outputs->tensors)
          : backend_->Execute(io_.inputs(), io_.wanted(), &outputs->tensors);
  times->computed_ns = times->end_ns = clock.NowNs();
  PENSTOCK_RETURN_IF_ERROR(executed);
  PENSTOCK_RETURN_IF_ERROR(io_.Scatter(batch, outputs, outcomes));
  times->end_ns = clock.NowNs();
  return Status::Ok();
}

Status Instance::AnswerOrThrow(const Batch& batch, BatchTimes* times, std::span<Status> outcomes) {
  answers_.Open(batch, outcomes, environment_.spec);
  Status executed = backend_->ExecuteRequests(io_.inputs(), answers_.requests());
  times->computed_ns = times->end_ns = environment_.clock.NowNs();
  return executed;
}

Status Instance::WarmUp(const RequestRef& request) {
  Batch batch;
  batch.requests.push_back(request);
  batch.rows = request->rows;
  BatchTimes times;
  std::vector<Status> outcomes;
  Execute(batch, &times, &outcomes);
  if (!answers_requests_ || !answers_.was_kept()[0]) return outcomes[0];
  ResponseChannel& channel = *AsInfer(request).channel;
  const int64_t deadline_ns = environment_.clock.NowNs() + kWarmUpNs;
  std::optional<Status> outcome = channel.WaitFinished(environment_.clock, deadline_ns);
  if (!outcome.has_value()) {
    outcome =
        DeadlineExceeded(StrCat(environment_.spec.DisplayName(), " did not finish a request in ",
                                kWarmUpNs / 1'000'000'000, " s"));
    channel.Fail(*outcome);
  }
  environment_.kept.Remove(AsInfer(request));
  return *outcome;
}

void Instance::Start(std::function<void()> on_exit) {
  thread_ = Thread("ps-" + environment_.spec.model_name, [this, on_exit = std::move(on_exit)] {
    Run();
    has_ended_.store(true);
    on_exit();
  });
}

void Instance::Run() noexcept {
  Batch batch;
  std::vector<Status> outcomes;
  while (environment_.batcher.NextBatch(&batch, this)) {
    MutexLock lock(run_mu_);
    RunBatch(&batch, &outcomes);
  }
}

bool Instance::TryRunHere() noexcept {
  if (!may_run_here_ || run_ns_.load(std::memory_order_relaxed) > kQuickRunNs) return false;
  if (!run_mu_.TryLock()) return false;
  int64_t wait_until_ns = 0;
  const bool has_batch =
      backend_ != nullptr &&
      environment_.batcher.TryNextBatch(&batch_here_, &wait_until_ns, Background::kLeaves);
  if (has_batch) RunBatch(&batch_here_, &outcomes_here_);
  run_mu_.Unlock();
  return has_batch;
}

bool Instance::is_available() const {
  MutexLock lock(close_mu_);
  return !is_closed_ && asked_.is_available();
}

uint64_t Instance::restarts() const {
  MutexLock lock(close_mu_);
  return is_closed_ ? 0 : asked_.restarts();
}

void Instance::Close() {
  {
    MutexLock lock(close_mu_);
    is_closed_ = true;
  }
  MutexLock lock(run_mu_);
  backend_.reset();
}

// Bounded, for a batch that was preempted says little about the next one; yet one that held up its
// submitter for long is followed by some dozens that do not get the chance.
//
// With background requests a batch is larger than those that run on a submitter's thread. It says
// something where it was quicker all the same: else one batch that was slow, and none behind it
// without them, would be the last word.
void Instance::LearnRunTime(const Batch& batch, int64_t run_ns) {
  const int64_t seen_ns = std::min(run_ns, 256 * kQuickRunNs);
  const int64_t average_ns = run_ns_.load(std::memory_order_relaxed);
  if (batch.reason == CloseReason::kBackground) return;
  if (batch.has_background() && seen_ns >= average_ns) return;
  run_ns_.store(average_ns == kNever ? seen_ns : average_ns + (seen_ns - average_ns) / 16,
                std::memory_order_relaxed);
}

void Instance::RunBatch(Batch* batch, std::vector<Status>* outcomes) {
  BatchTimes times;
  is_busy_.store(true, std::memory_order_relaxed);
  Execute(*batch, &times, outcomes);
  is_busy_.store(false, std::memory_order_relaxed);
  LearnRunTime(*batch, times.end_ns - times.start_ns);
  const uint32_t kept_rows = answers_requests_ ? TakeKeptOut(batch, outcomes) : 0;
  environment_.batcher.End(*batch, *outcomes);  // what is cancelled from here on was served
  environment_.statistics.RecordBatch(*batch, times, *outcomes, kept_rows, UnixTimeMs());
  // Before anybody else can have them: the last to use a region closes its file, which takes time.
  for (const RequestRef& request : batch->requests) AsInfer(request).ReleaseSharedMemory();
  environment_.batcher.Deliver(batch, *outcomes);
}

// Leaves those in `batch` that have ended with it; returns the rows of the others.
uint32_t Instance::TakeKeptOut(Batch* batch, std::vector<Status>* outcomes) const {
  uint32_t kept_rows = 0;
  size_t left = 0;
  for (size_t i = 0; i < batch->requests.size(); ++i) {
    if (answers_.was_kept()[i]) {
      kept_rows += batch->requests[i]->rows;
      continue;
    }
    if (left != i) {
      batch->requests[left] = std::move(batch->requests[i]);
      (*outcomes)[left] = std::move((*outcomes)[i]);
    }
    left += 1;
  }
  batch->requests.resize(left);
  outcomes->resize(left);
  return kept_rows;
}

}  // namespace penstock
