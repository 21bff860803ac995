// The engine's exceptions as ours: no exception of OpenVINO leaves a call to it.

#pragma once

#include <exception>
#include <functional>
#include <string>
#include <string_view>

#include "backends/backend.h"
#include "base/status.h"

namespace penstock::openvino {

// "model 'digits' version 1", the start of every message about a load.
std::string ModelLabel(const LoadOptions& options);

// What the engine says, in one line: without the places in its source code, and without the model's
// directory. `options` may be null where no file is being read.
std::string EngineMessage(const std::exception& error, const LoadOptions* options);

// The status for an exception that reading, converting or compiling a model threw: `what` and the
// engine's reason. UNIMPLEMENTED for an operator or a feature that it does not have,
// RESOURCE_EXHAUSTED for want of memory, else INVALID_ARGUMENT: the file is at fault.
Status LoadError(std::string_view what, const std::exception& error, const LoadOptions& options);

// Runs `step`; an exception becomes "<what>: <its message>", INTERNAL but for want of memory.
Status GuardStatus(std::string_view what, const std::function<Status()>& step);

// As GuardStatus, for a step that gives something.
template <typename T>
Result<T> Guard(std::string_view what, const std::function<Result<T>()>& step) {
  Result<T> result = Internal(std::string(what));
  Status status = GuardStatus(what, [&] {
    result = step();
    return Status::Ok();
  });
  if (!status.ok()) return status;
  return result;
}

}  // namespace penstock::openvino
