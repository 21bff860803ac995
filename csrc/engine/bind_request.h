// BindRequest: does a parsed request fit the model? The last check before it is queued.

#pragma once

#include <optional>
#include <string_view>

#include "base/status.h"
#include "engine/infer_request.h"
#include "engine/version_spec.h"
#include "memory/shared_memory.h"

namespace penstock {

// Checks request->view against `spec` and fills request->inputs, wanted, rows, key, priority,
// timeout_us, shared_bytes, shared_inputs, shared_outputs. INVALID_ARGUMENT with the texts that public clients
// look for; the batch axis, datatypes, shapes, byte counts, names, duplicates and reserved
// parameters are all checked here, BYTES lengths included. What lies in `shared_memory` is not
// read: of it only the claims are checked.
Status BindRequest(const VersionSpec& spec, const SharedMemory& shared_memory,
                   InferRequest* request);

// Whether a request's parameter of that name is the server's, and not passed to the model.
bool IsReservedParameter(std::string_view key);

// Whether the client makes it a background request, as far as it says so properly.
bool IsLowered(const InferRequestView& view);

// Checks what a tensor's bytes say: exactly `count` elements of BYTES fill them, BOOLs are 0 or 1.
Status CheckContents(const VersionSpec& spec, const TensorView& tensor, int64_t count);

// The version that a request's model_version names: nullopt for "" (by policy). INVALID_ARGUMENT
// where it is not a non-negative integer.
Result<std::optional<int64_t>> ParseModelVersion(std::string_view text);

}  // namespace penstock
