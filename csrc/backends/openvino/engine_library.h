// StartEngine: finds OpenVINO's library, opens it, and starts the backend that is linked with it.
//
// OpenVINO's C++ interface is its version's own, and the library's name carries that version
// (libopenvino.so.2641), so the library that is opened is the one that the backend was built with.

#pragma once

#include <memory>

#include "backends/backend.h"
#include "base/status.h"

namespace penstock::openvino {

// The entry of penstock_openvino_engine.so, of type BackendEntry.
inline constexpr const char* kEngineEntry = "penstock_openvino_engine_v1";

// Option "library": the shared object, or the directory that holds it; absent: the loader's search.
// INVALID_ARGUMENT for any other option; FAILED_PRECONDITION, naming the version that is needed,
// where the library is missing or does not open. What is opened is never closed.
Result<std::unique_ptr<Backend>> StartEngine(const BackendOptions& options);

}  // namespace penstock::openvino
