// Report: what a run measured, in words and as JSON.

#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "load/histogram.h"
#include "load/outcome.h"

namespace penstock::load {

struct Failures {
  uint64_t count = 0;
  std::string first;  // text of the first one
};

// Threading: thread-compatible.
struct Report {
  // Of measured requests that were answered rightly: from the intended time in open loop, from the
  // send in closed loop, to the answer.
  Histogram latency;
  // Of measured requests, how long after the intended time they were sent: the client's own fault,
  // or its bound on requests in flight.
  Histogram lateness;
  uint64_t sent = 0;                         // warm-up included, as in `outcomes`
  uint64_t measured = 0;                     // sent after the warm-up
  std::array<Failures, kOutcomes> outcomes;  // by Outcome; kOk has a count only
  int64_t measured_ns = 0;                   // from the end of the warm-up to the last answer
  double target_rate = 0;                    // 0 = closed loop
  uint64_t reconnects = 0;
  std::string ended_early;  // why, "" if the run came to its end

  uint64_t failed() const;
  double rate() const;  // right answers to measured requests, per second
  bool is_clean() const { return failed() == 0 && ended_early.empty(); }
  std::string ToText() const;
  std::string ToJson() const;
};

}  // namespace penstock::load
