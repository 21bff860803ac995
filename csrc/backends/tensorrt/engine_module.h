// StartEngine: preflight, then the adapter that was compiled with headers of the library's major.
//
// Adapters are modules of their own, penstock_tensorrt_engine_<major>_<minor>.so beside the plug-in,
// each compiled with the TensorRT headers that its name says. A build without headers has none: it
// still says what a machine lacks.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "backends/tensorrt/version.h"
#include "base/status.h"

namespace penstock::tensorrt {

// The entry of an adapter, of type BackendEntry. Its options: "library" (what to open), "place"
// (where it was found: PlaceOf), "host_code" (settings.h).
inline constexpr const char* kEngineEntry = "penstock_tensorrt_engine_v1";

// The adapters in a directory, by their names.
std::vector<HeaderVersion> FindAdapters(const std::string& directory);

// FAILED_PRECONDITION, "TensorRT cannot be used: <the one reason>", without paths; UNAVAILABLE where that
// is the driver or the device, which another process may find.
Result<std::unique_ptr<Backend>> StartEngine(const BackendOptions& options);

}  // namespace penstock::tensorrt
