// Settings of the tensorrt backend as a whole.

#pragma once

#include "backends/backend.h"
#include "backends/tensorrt/library_search.h"
#include "base/status.h"

namespace penstock::tensorrt {

// Option "library": a file or the directory that holds it. "search": directories to look in where
// there is no library, separated by ':'. "host_code": 1 where plans may hold code that the host runs,
// else 0. INVALID_ARGUMENT for any other.
Result<SearchOptions> ReadSettings(const BackendOptions& options);

}  // namespace penstock::tensorrt
