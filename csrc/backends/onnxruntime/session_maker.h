// MakeSession: a model's file as a session of the engine; MakeRunOptions: what its runs are given.

#pragma once

#include <functional>
#include <memory>
#include <string>

#include "backends/backend.h"
#include "backends/onnxruntime/model_file.h"
#include "backends/onnxruntime/ort_library.h"
#include "backends/onnxruntime/run_turns.h"
#include "backends/onnxruntime/settings.h"
#include "base/status.h"

namespace penstock::ort {

// Tells the engine where a session computes; null: on the CPU.
using AddProviders = std::function<Status(SessionOptions*)>;

// NOT_FOUND, INVALID_ARGUMENT, UNIMPLEMENTED or INTERNAL, with the engine's words and no paths; or
// what `add_providers` says.
// Blocking: reads the file and prepares the model, which may take minutes.
Result<std::shared_ptr<Session>> MakeSession(const OrtLibrary& library, const LoadOptions& options,
                                             const Settings& settings, const ModelFileFacts& facts,
                                             const AddProviders& add_providers);

// What a run is given that ends so. `api`: the library's.
Result<Owned<RunOptions>> MakeRunOptions(const OrtLibrary& library, const Api& api, RunEnd end,
                                         const std::string& label);

}  // namespace penstock::ort
