// Settings: of the backend as a whole, and of one model of it.

#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "backends/backend.h"
#include "base/status.h"
#include "worker/worker_limits.h"

namespace penstock::python {

// Options of the backend.
struct BackendSettings {
  std::string interpreter;  // the program that runs models without an environment of their own
  std::string runtime;      // the file that it is started with: server/penstock/worker/__main__.py
};

// INVALID_ARGUMENT naming an option that is not known or is missing.
Result<BackendSettings> ReadBackendSettings(const BackendOptions& options);

// A model's `parameters`.
struct ModelSettings {
  WorkerLimits limits;
  uint64_t memory_limit_mb = 0;  // of the worker's own memory, MiB; 0 = no limit
  uint32_t max_restarts = 5;     // within the window below; 0 = a worker that ends stays so
  double restart_window_s = 300;
  std::string interpreter;  // of the model's own environment; the server says which
};

// INVALID_ARGUMENT naming a parameter that is not a number or out of range, or that Triton's backend
// has and this one refuses. Parameters of other names are the model's own.
Result<ModelSettings> ReadModelSettings(const std::map<std::string, std::string>& parameters);

}  // namespace penstock::python
