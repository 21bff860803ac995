// Pacer: when the next request is due.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>

#include "base/clock.h"

namespace penstock::load {

enum class Arrivals : uint8_t { kPoisson, kConstant };

struct PacerOptions {
  // Open loop: requests a second, whatever the answers do. 0 = closed loop: a request is due as soon
  // as fewer than max_in_flight are without an answer.
  double rate = 0;
  Arrivals arrivals = Arrivals::kPoisson;
  uint64_t seed = 1;
  // In open loop the bound of memory: over it requests wait, and their latency counts the wait.
  size_t max_in_flight = 1;
  int64_t warmup_ns = 0;    // requests intended before it has passed are not measured
  int64_t duration_ns = 0;  // after the warm-up; 0 = until `requests` are measured
  uint64_t requests = 0;    // measured ones; 0 = until `duration_ns` has passed
};

// Decides by the time that it is told, so that a test can run it without any.
//
// In open loop the intended times are drawn in advance and never move: a request that is sent late,
// because the client or the server stalled, is late by that much in its latency as well
// (coordinated omission is counted, not hidden).
//
// Threading: thread-compatible. Lifecycle: Due(), and where it gave a time, the request is sent.
class Pacer {
 public:
  struct Due {
    int64_t intended_ns;
    bool is_measured;
  };

  Pacer(PacerOptions options, int64_t start_ns);

  // The request to send now, or none.
  std::optional<Due> Next(int64_t now_ns, size_t in_flight);
  // When Next may have one without another answer: kNever if only an answer can make one due.
  int64_t NextNs(int64_t now_ns, size_t in_flight) const;
  // When the last request may be due: kNever if their number ends the run.
  int64_t end_ns() const { return end_ns_; }
  int64_t measure_from_ns() const { return measure_from_ns_; }
  // No request will be due any more.
  bool IsOver(int64_t now_ns) const;

 private:
  bool is_open_loop() const { return options_.rate > 0; }
  int64_t IntendedNs(int64_t now_ns) const { return is_open_loop() ? arrival_ns_ : now_ns; }
  int64_t DrawGapNs();

  const PacerOptions options_;
  const int64_t measure_from_ns_;
  const int64_t end_ns_;
  std::mt19937_64 random_;
  double remainder_ns_ = 0;  // of gaps, which are whole nanoseconds
  int64_t arrival_ns_;       // of the next request, in open loop
  uint64_t measured_ = 0;
};

}  // namespace penstock::load
