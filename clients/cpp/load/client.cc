#include "load/client.h"

#include <utility>

#include "base/clock.h"

namespace penstock::load {

Result<std::unique_ptr<Client>> Client::Start(FleetOptions options) {
  std::unique_ptr<Client> client(new Client());
  PENSTOCK_ASSIGN_OR_RETURN(client->fleet_, Fleet::Connect(std::move(options), client.get()));
  client->fleet_->WatchAlso(client->wake_.fd());
  const MutexLock lock(client->join_mu_);
  client->thread_ = Thread("ps-load", [client = client.get()]() noexcept { client->Run(); });
  return client;
}

Client::~Client() {
  Close();
  fleet_.reset();
}

Status Client::Submit(std::vector<ClientRequest> requests) {
  const int64_t now_ns = Clock::System().NowNs();
  {
    const MutexLock lock(mu_);
    if (is_closing_) return FailedPrecondition("the load client is closed");
    in_flight_ += requests.size();
    for (auto& request : requests) submitted_.push_back({std::move(request), now_ns});
  }
  wake_.Set();
  return Status::Ok();
}

std::vector<ClientCompletion> Client::Take(int64_t timeout_ns) {
  const int64_t start_ns = Clock::System().NowNs();
  const MutexLock lock(mu_);
  while (done_.empty() && !has_ended_) {
    const int64_t left_ns = timeout_ns - (Clock::System().NowNs() - start_ns);
    if (left_ns <= 0) break;
    changed_.WaitFor(mu_, left_ns);
  }
  return std::exchange(done_, {});
}

void Client::Close() {
  {
    const MutexLock lock(mu_);
    is_closing_ = true;
  }
  wake_.Set();
  const MutexLock lock(join_mu_);
  thread_.Join();
}

void Client::Run() noexcept {
  while (true) {
    std::deque<Submitted> submitted;
    bool is_closing = false;
    {
      const MutexLock lock(mu_);
      submitted.swap(submitted_);
      is_closing = is_closing_;
    }
    SendAll(std::move(submitted));
    if (is_closing) break;
    Publish();
    fleet_->Poll(kNever);
    wake_.Clear();
    Publish();
  }
  fleet_->Abandon(Outcome::kNoAnswer, "the load client was closed");
  Publish();
  const MutexLock lock(mu_);
  has_ended_ = true;
  changed_.NotifyAll();
}

void Client::SendAll(std::deque<Submitted> submitted) {
  for (Submitted& each : submitted) {
    if (free_.empty()) {
      free_.push_back(pending_.size());
      pending_.emplace_back();
    }
    const uint64_t token = free_.back();
    free_.pop_back();
    pending_[token] = {each.request.tag, each.submitted_ns};
    auto body = std::make_shared<const std::string>(std::move(each.request.message));
    const Status status = fleet_->Send({token, *body, "", body});
    if (!status.ok()) OnAnswer(token, {Outcome::kConnectionLost, status.message(), ""});
  }
}

void Client::OnAnswer(uint64_t token, const Answer& answer) {
  const bool is_ok = answer.outcome == Outcome::kOk;
  Complete(pending_[token], answer.outcome, is_ok ? answer.message : answer.text);
  free_.push_back(token);
}

void Client::Complete(const Pending& pending, Outcome outcome, std::string_view payload) {
  const int64_t latency_ns = Clock::System().NowNs() - pending.submitted_ns;
  batch_.push_back({pending.tag, outcome, std::string(payload), latency_ns});
}

// Once for all that a turn brought: who takes is woken once.
void Client::Publish() {
  if (batch_.empty()) return;
  const MutexLock lock(mu_);
  for (auto& completion : batch_) done_.push_back(std::move(completion));
  in_flight_ -= batch_.size();
  batch_.clear();
  changed_.NotifyAll();
}

}  // namespace penstock::load
