#include "load/run.h"

#include <sys/prctl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/strcat.h"
#include "load/ledger.h"
#include "load/message.h"

namespace penstock::load {
namespace {

constexpr int kMostSendsPerTurn = 256;  // then answers are looked at, and what is written is sent

// One run. Confined to its thread.
class Runner final : public Fleet::Sink {
 public:
  Runner(const RunOptions& options, const Workload& workload)
      : options_(options), workload_(workload) {}

  // Time starts when the connections are there.
  Status Start() {
    PENSTOCK_ASSIGN_OR_RETURN(fleet_, Fleet::Connect(options_.fleet, this));
    last_progress_ns_ = clock_.NowNs();
    pacer_.emplace(options_.pacer, last_progress_ns_);
    ledger_.emplace(pacer_->measure_from_ns());
    return Status::Ok();
  }

  Report Run() {
    while (Turn()) {
    }
    if (ledger_->in_flight() > 0) fleet_->Abandon(Outcome::kNoAnswer, "none when the run ended");
    Report& report = ledger_->report();
    report.target_rate = options_.pacer.rate;
    report.reconnects = fleet_->reconnects();
    return std::move(report);
  }

  void OnAnswer(uint64_t token, const Answer& answer) override {
    const Ledger::Entry& entry = ledger_->entry(token);
    const int64_t now_ns = clock_.NowNs();
    Answer judged = answer;
    if (answer.outcome == Outcome::kOk) {
      judged = workload_.Judge(entry.sample, entry.id, answer.message, &text_);
    }
    ledger_->End(token, now_ns, judged.outcome, judged.text);
    last_progress_ns_ = now_ns;
  }

 private:
  // Sends what is due, takes what has come. False at the end.
  bool Turn() {
    int64_t now_ns = clock_.NowNs();
    for (int sent = 0; sent < kMostSendsPerTurn; ++sent, now_ns = clock_.NowNs()) {
      const auto due = pacer_->Next(now_ns, ledger_->in_flight());
      if (!due) break;
      if (!Send(*due, now_ns)) return false;
    }
    const bool is_over = pacer_->IsOver(now_ns);
    if (is_over && ledger_->in_flight() == 0) return false;
    // Requests that nobody was asked for yet need no answer: patience starts with the first.
    if (ledger_->in_flight() == 0) last_progress_ns_ = now_ns;
    const int64_t patient_until_ns = last_progress_ns_ + options_.patience_ns;
    if (now_ns >= patient_until_ns) {
      EndEarly(StrCat("no answer for ", options_.patience_ns / 1'000'000, " ms"));
      return false;
    }
    int64_t wake_ns = std::min(patient_until_ns, pacer_->NextNs(now_ns, ledger_->in_flight()));
    if (!is_over) wake_ns = std::min(wake_ns, pacer_->end_ns());
    fleet_->Poll(wake_ns - now_ns);
    return true;
  }

  bool Send(const Pacer::Due& due, int64_t now_ns) {
    const size_t sample = sent_ % workload_.size();
    std::string id;
    if (workload_.options().unique_ids) id = std::to_string(sent_);
    ++sent_;
    Message message;
    message.body = workload_.request(sample);
    if (!id.empty()) message.tail = IdField(id);
    message.token = ledger_->Begin(due, now_ns, sample, std::move(id));
    const uint64_t token = message.token;
    const Status status = fleet_->Send(std::move(message));
    if (status.ok()) return true;
    ledger_->Cancel(token);
    EndEarly(status.message());
    return false;
  }

  void EndEarly(std::string_view why) { ledger_->report().ended_early = why; }

  Clock& clock_ = Clock::System();
  const RunOptions& options_;
  const Workload& workload_;
  std::optional<Pacer> pacer_;    // from Start on
  std::optional<Ledger> ledger_;  // likewise
  std::unique_ptr<Fleet> fleet_;
  int64_t last_progress_ns_ = 0;
  uint64_t sent_ = 0;
  std::string text_;  // kept for its capacity
};

}  // namespace

Result<Report> Run(const RunOptions& options, const Workload& workload) {
  // A wait for the next arrival must not be rounded up to the thread's usual slack of 50 us.
  prctl(PR_SET_TIMERSLACK, 1);
  Runner runner(options, workload);
  PENSTOCK_RETURN_IF_ERROR(runner.Start());
  return runner.Run();
}

}  // namespace penstock::load
