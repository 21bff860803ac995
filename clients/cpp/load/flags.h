// Flags: the command line of penstock-load.

#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "load/run.h"

namespace penstock::load {

struct Flags {
  RunOptions run;
  WorkloadOptions workload;
  std::vector<Sample> samples;  // read from the files that were named
  std::string json;             // where to write the report; "" = nowhere
  bool help = false;
};

// INVALID_ARGUMENT names the flag that will not do, or the file that cannot be read.
Result<Flags> ParseFlags(const std::vector<std::string>& arguments);

// What --help says.
std::string FlagsHelp();

}  // namespace penstock::load
