#include "load/ledger.h"

#include <algorithm>
#include <utility>

namespace penstock::load {

uint64_t Ledger::Begin(const Pacer::Due& due, int64_t sent_ns, size_t sample, std::string id) {
  if (free_.empty()) {
    free_.push_back(entries_.size());
    entries_.emplace_back();
  }
  const uint64_t token = free_.back();
  free_.pop_back();
  entries_[token] = {due.intended_ns, due.is_measured, sample, std::move(id)};
  ++in_flight_;
  ++report_.sent;
  if (due.is_measured) {
    ++report_.measured;
    report_.lateness.Record(sent_ns - due.intended_ns);
  }
  return token;
}

void Ledger::Cancel(uint64_t token) {
  --report_.sent;
  if (entries_[token].is_measured) --report_.measured;
  Free(token);
}

void Ledger::End(uint64_t token, int64_t now_ns, Outcome outcome, std::string_view text) {
  const Entry& entry = entries_[token];
  Failures& ended = report_.outcomes[static_cast<size_t>(outcome)];
  if (ended.count++ == 0) ended.first = text;
  if (entry.is_measured) {
    report_.measured_ns = std::max(report_.measured_ns, now_ns - measure_from_ns_);
    if (outcome == Outcome::kOk) report_.latency.Record(now_ns - entry.intended_ns);
  }
  Free(token);
}

void Ledger::Free(uint64_t token) {
  free_.push_back(token);
  --in_flight_;
}

}  // namespace penstock::load
