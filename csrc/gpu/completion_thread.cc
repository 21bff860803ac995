#include "gpu/completion_thread.h"

#include <algorithm>
#include <string>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/strcat.h"

namespace penstock::gpu {
namespace {

constexpr int64_t kShortestPauseNs = 20'000;

}  // namespace

CompletionThread::CompletionThread(Api& api, DeviceHealth& health, Clock& clock,
                                   const CompletionOptions& options)
    : api_(api), health_(health), clock_(clock), options_(options) {
  thread_ = Thread(StrCat("ps-gpu-", options.device), [this]() noexcept { Loop(); });
}

CompletionThread::~CompletionThread() {
  {
    MutexLock lock(mu_);
    is_ending_ = true;
    changed_.NotifyAll();
  }
  thread_.Join();
}

void CompletionThread::Watch(InFlight in_flight) {
  Entry entry;
  entry.push_back({std::move(in_flight)});
  Watch(std::move(entry));
}

void CompletionThread::Watch(Entry entry) noexcept {
  MutexLock lock(mu_);
  entry.front().since_ns = clock_.NowNs();
  new_.splice(new_.end(), entry);
  changed_.NotifyAll();
}

void CompletionThread::Loop() {
  static_cast<void>(health_.Check(api_.SetDevice(options_.device), "take the device"));
  while (TakeNew()) {
    // Before Poll: should this process be stopped in between, what ended meanwhile is not hung.
    const int64_t asked_ns = clock_.NowNs();
    if (const Status fault = health_.fault(); !fault.ok()) {
      FailAll(fault);
    } else if (Poll(asked_ns)) {
      last_progress_ns_ = clock_.NowNs();
    } else if (!FaultIfHung(asked_ns)) {
      Pause();
    }
  }
}

bool CompletionThread::TakeNew() {
  MutexLock lock(mu_);
  while (watched_.empty() && new_.empty() && !is_ending_) changed_.Wait(mu_);
  if (!new_.empty()) last_progress_ns_ = std::max(last_progress_ns_, new_.back().since_ns);
  watched_.splice(watched_.end(), new_);
  return !watched_.empty();
}

bool CompletionThread::Poll(int64_t now_ns) {
  std::list<Watched> over;
  for (auto it = watched_.begin(); it != watched_.end();) {
    const Error error = Query(*it, now_ns);
    if (error == Error::kNotReady) {
      ++it;
      continue;
    }
    if (error != Error::kSuccess) {
      const Status failed =
          health_.Check(error, StrCat("ask whether ", it->in_flight.what, " is over"));
      // Nobody knows now whether the device still uses the batch's memory.
      if (!health_.is_faulted()) health_.Fault(failed.message());
      break;
    }
    over.splice(over.end(), watched_, it++);
  }
  for (const Watched& one : over) one.in_flight.done(one.in_flight.status);
  return !over.empty();
}

Error CompletionThread::Query(Watched& watched, int64_t now_ns) {
  const Error counted = CountBusy(watched, now_ns);
  if (counted != Error::kSuccess && counted != Error::kNotReady) return counted;
  for (const Event event : watched.in_flight.events) {
    const Error error = event == nullptr ? Error::kSuccess : api_.QueryEvent(event);
    if (error != Error::kSuccess) return error;
  }
  return Error::kSuccess;
}

Error CompletionThread::CountBusy(Watched& watched, int64_t now_ns) {
  InFlight::Computing& computing = watched.in_flight.computing;
  if (computing.busy == nullptr) return Error::kSuccess;
  if (!watched.is_computing) {
    const Error error = api_.QueryEvent(computing.begin);
    if (error == Error::kNotReady) computing.since_ns.reset();
    if (error != Error::kSuccess) return error;
    watched.is_computing = true;
    if (!computing.since_ns) computing.since_ns = now_ns;
  }
  const Error error = api_.QueryEvent(computing.end);
  // Also while it goes on: a long one counts as it runs.
  computing.busy->Add(*computing.since_ns, now_ns);
  if (error == Error::kSuccess) computing.busy = nullptr;
  return error;
}

void CompletionThread::FailAll(const Status& fault) {
  for (const Watched& one : std::exchange(watched_, {})) one.in_flight.done(fault);
}

bool CompletionThread::FaultIfHung(int64_t asked_ns) {
  if (health_.is_faulted()) return true;
  const int64_t waited_ns = asked_ns - watched_.front().since_ns;
  if (waited_ns <= options_.hang_limit_ns) return false;
  health_.Fault(StrCat(watched_.front().in_flight.what, " is not over after ", waited_ns / kNsPerMs,
                       " ms, expected at most ", options_.hang_limit_ns / kNsPerMs));
  return true;
}

void CompletionThread::Pause() {
  const int64_t now_ns = clock_.NowNs();
  const int64_t idle_ns = now_ns - last_progress_ns_;
  if (idle_ns < options_.spin_ns) {
    std::this_thread::yield();
    return;
  }
  const int64_t pause_ns = std::clamp(idle_ns / 16, kShortestPauseNs,
                                      std::max(kShortestPauseNs, options_.longest_pause_ns));
  MutexLock lock(mu_);
  if (!new_.empty()) return;
  clock_.WaitUntil(changed_, mu_, now_ns + pause_ns);
}

}  // namespace penstock::gpu
