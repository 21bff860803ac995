// Preflight: whether TensorRT can be used here, found out by a child process.

#pragma once

#include <string>
#include <vector>

#include "backends/tensorrt/version.h"
#include "base/status.h"

namespace penstock::tensorrt {

struct PreflightOptions {
  std::string program;  // the probe
  std::vector<std::string> candidates;
  std::vector<HeaderVersion> accepted;
  int limit_ms = 60'000;  // a cold driver takes seconds, and starts one GPU after another
};

struct FoundLibrary {
  std::string path;  // or its name, which the loader finds
  Version version;
};

// The library that may be opened in this process: there is a driver with a device, and an adapter
// drives its version. UNAVAILABLE where there is no device, or none is seen without a driver;
// FAILED_PRECONDITION otherwise, with the first thing that is missing, and without paths; also where the probe crashes or does not end, and then with what it was doing.
// Blocking: until the probe has ended, seconds.
Result<FoundLibrary> Preflight(const PreflightOptions& options);

// The same, asked once in this process for each set of candidates and adapters, whatever came of
// it: a driver that hangs a probe would hang the next one too. Whoever asks meanwhile waits.
// Threading: thread-safe.
Result<FoundLibrary> RememberedPreflight(const PreflightOptions& options);

}  // namespace penstock::tensorrt
