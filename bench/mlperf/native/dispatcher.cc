#include "native/dispatcher.h"

#include <poll.h>

#include <algorithm>
#include <ctime>
#include <string>
#include <utility>

#include "base/strcat.h"

namespace penstock::loadgen {
namespace {

// A full queue is an answer; whatever else is UNAVAILABLE will be so for the rest of the run.
bool IsLost(const load::Answer& answer) {
  if (answer.outcome == load::Outcome::kConnectionLost) return true;
  constexpr auto kUnavailable = static_cast<load::Outcome>(StatusCode::kUnavailable);
  return answer.outcome == kUnavailable && answer.text.find("queue") == std::string_view::npos;
}

}  // namespace

Result<std::unique_ptr<Dispatcher>> Dispatcher::Start(Recorder* recorder, Limits limits,
                                                      const Carrier::Factory& factory) {
  std::unique_ptr<Dispatcher> made(new Dispatcher(recorder, limits));
  PENSTOCK_ASSIGN_OR_RETURN(made->carrier_, factory(made.get(), made->wake_.fd()));
  made->thread_ = LastingThread([made = made.get()]() noexcept { made->Run(); });
  return made;
}

Dispatcher::~Dispatcher() {
  {
    const MutexLock lock(mu_);
    is_closing_ = true;
  }
  wake_.Set();
  thread_.Join();
}

void Dispatcher::Issue(std::span<const Query> queries) {
  const int64_t now_ns = recorder_.NowNs();
  bool must_wake = false;
  {
    const MutexLock lock(mu_);
    if (issued_.empty()) issued_.reserve(queries.size());  // Offline's come all at once
    for (const Query& query : queries) issued_.push_back({query, now_ns});
    must_wake = std::exchange(is_armed_, false);
  }
  if (must_wake) wake_.Set();
}

void Dispatcher::Run() noexcept {
  while (TakeIssued()) {
    if (!AwaitRate()) continue;
    SendSome();
    recorder_.Publish();  // what could not even be sent
    carrier_->Turn();
    recorder_.Publish();
  }
  carrier_->Abandon();
  recorder_.Publish();
}

// Everything that was issued, into the backlog. False: the dispatcher is closing.
bool Dispatcher::TakeIssued() {
  if (next_ == backlog_.size()) {
    backlog_.clear();
    next_ = 0;
  }
  wake_.Clear();  // before the lock: what was issued by now is taken, what comes later wakes again
  const MutexLock lock(mu_);
  if (backlog_.empty()) {
    backlog_.swap(issued_);
  } else {
    backlog_.insert(backlog_.end(), issued_.begin(), issued_.end());
    issued_.clear();
  }
  is_armed_ = true;
  return !is_closing_;
}

void Dispatcher::SendSome() {
  if (recorder_.is_lost()) return;
  for (size_t room = Room(); room > 0; --room) {
    Waiting& waiting = backlog_[next_++];
    if (limits_.window > 0) waiting.issued_ns = recorder_.NowNs();
    carrier_->Send(NewToken(waiting), waiting.query.sample);
    ++sent_;
  }
}

// How many may be sent now.
size_t Dispatcher::Room() {
  const size_t under_way = pending_.size() - free_.size();
  size_t room = backlog_.size() - next_;
  if (limits_.window > 0)
    room = std::min(room, limits_.window - std::min(limits_.window, under_way));
  return limits_.per_s == 0.0 ? room : std::min(room, Due());
}

// How many should have been sent by now and were not; the first at once.
size_t Dispatcher::Due() {
  const int64_t now_ns = recorder_.NowNs();
  if (sent_ == 0) began_ns_ = now_ns;
  const auto due =
      static_cast<size_t>(static_cast<double>(now_ns - began_ns_) * limits_.per_s / 1e9) + 1;
  return due - std::min(due, sent_);
}

// While nothing is under way no answer ends a turn: the rate is waited for here. False: woken
// before, by what was issued or by the end.
bool Dispatcher::AwaitRate() {
  while (limits_.per_s > 0.0 && !recorder_.is_lost() && pending_.size() == free_.size() &&
         next_ < backlog_.size() && Due() == 0) {
    const auto due_ns = static_cast<int64_t>(static_cast<double>(sent_) * 1e9 / limits_.per_s);
    const int64_t left_ns = std::max<int64_t>(1, began_ns_ + due_ns - recorder_.NowNs());
    const timespec left{left_ns / 1'000'000'000, left_ns % 1'000'000'000};
    pollfd woken{wake_.fd(), POLLIN, 0};
    if (ppoll(&woken, 1, &left, nullptr) > 0) return false;
  }
  return true;
}

size_t Dispatcher::NewToken(const Waiting& waiting) {
  if (free_.empty()) {
    free_.push_back(pending_.size());
    pending_.emplace_back();
  }
  const size_t token = free_.back();
  free_.pop_back();
  pending_[token] = waiting;
  return token;
}

void Dispatcher::OnAnswer(size_t token, const load::Answer& answer) {
  const Waiting& waiting = pending_[token];
  free_.push_back(token);
  if (answer.outcome == load::Outcome::kOk) {
    recorder_.Answer(waiting.query, waiting.issued_ns, answer.message);
    return;
  }
  const std::string_view name = load::OutcomeName(static_cast<size_t>(answer.outcome));
  recorder_.Fail(waiting.query, StrCat(name, ": ", answer.text), IsLost(answer));
}

}  // namespace penstock::loadgen
