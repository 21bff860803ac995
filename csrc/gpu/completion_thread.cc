#include "gpu/completion_thread.h"

#include <algorithm>
#include <iterator>
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
  MutexLock lock(mu_);
  new_.push_back({std::move(in_flight), clock_.NowNs()});
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
  std::move(new_.begin(), new_.end(), std::back_inserter(watched_));
  new_.clear();
  return !watched_.empty();
}

bool CompletionThread::Poll(int64_t now_ns) {
  std::vector<Watched> over;
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
    over.push_back(std::move(*it));
    it = watched_.erase(it);
  }
  for (const Watched& one : over) one.in_flight.done(one.in_flight.status);
  return !over.empty();
}

Error CompletionThread::Query(Watched& watched, int64_t now_ns) {
  const InFlight& in_flight = watched.in_flight;
  for (size_t& i = watched.events_over; i < in_flight.events.size(); ++i) {
    const Event event = in_flight.events[i];
    const Error error = event == nullptr ? Error::kSuccess : api_.QueryEvent(event);
    // Also while it goes on: a long one counts as it runs.
    if (i == 1 && in_flight.busy != nullptr) in_flight.busy->Add(watched.first_over_ns, now_ns);
    if (error != Error::kSuccess) return error;
    if (i == 0) watched.first_over_ns = now_ns;
  }
  return Error::kSuccess;
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
