// Reading a session's inputs and outputs: names, types, shapes, and how output shapes follow from
// inputs.

#pragma once

#include <string>

#include "backends/backend.h"
#include "backends/onnxruntime/model_file.h"
#include "backends/onnxruntime/ort_library.h"
#include "backends/onnxruntime/session_signature.h"
#include "base/status.h"

namespace penstock::ort {

// The protocol's type for the engine's; kInvalid for one the protocol does not have.
DataType FromElementType(ElementType type);
// The engine's for the protocol's; kUndefined for kInvalid.
ElementType ToElementType(DataType dtype);

// `label` starts the messages. UNIMPLEMENTED for an input or output that is no tensor, or of a type
// or rank that the protocol or Penstock does not have.
Result<SessionSignature> ReadSessionSignature(const OrtLibrary& library, const Session* session,
                                              const ModelFileFacts& facts,
                                              const std::string& label);

}  // namespace penstock::ort
