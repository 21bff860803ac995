// Ledger: the requests that are under way, and the report that they add up to.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "load/pacer.h"
#include "load/report.h"

namespace penstock::load {

// Threading: thread-compatible. Lifecycle: Begin gives a token, End takes it back, exactly once.
// Cost: allocates while the number of requests under way grows, not after.
class Ledger {
 public:
  struct Entry {
    int64_t intended_ns = 0;
    bool is_measured = false;
    size_t sample = 0;
    std::string id;  // "" = none
  };

  explicit Ledger(int64_t measure_from_ns) : measure_from_ns_(measure_from_ns) {}

  uint64_t Begin(const Pacer::Due& due, int64_t sent_ns, size_t sample, std::string id);
  // The request was not sent after all.
  void Cancel(uint64_t token);
  void End(uint64_t token, int64_t now_ns, Outcome outcome, std::string_view text);

  const Entry& entry(uint64_t token) const { return entries_[token]; }
  size_t in_flight() const { return in_flight_; }
  Report& report() { return report_; }

 private:
  void Free(uint64_t token);

  const int64_t measure_from_ns_;
  std::vector<Entry> entries_;
  std::vector<uint64_t> free_;
  size_t in_flight_ = 0;
  Report report_;
};

}  // namespace penstock::load
