// Run: loads a server and reports.

#pragma once

#include <cstdint>

#include "base/status.h"
#include "load/fleet.h"
#include "load/pacer.h"
#include "load/report.h"
#include "load/workload.h"

namespace penstock::load {

struct RunOptions {
  FleetOptions fleet;
  PacerOptions pacer;
  // Without an answer for so long, although some are due, the run ends early.
  int64_t patience_ns = int64_t{30} * 1'000'000'000;
};

// Sends the workload's samples in turn, as the pacer says, and judges every answer. Whatever goes
// wrong is in the report; a Status is for what kept the run from starting.
//
// Blocking: yes, on the calling thread, which does all the work, until every request has its answer
// (or patience ends).
Result<Report> Run(const RunOptions& options, const Workload& workload);

}  // namespace penstock::load
