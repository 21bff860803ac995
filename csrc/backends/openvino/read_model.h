// ReadModel: a model file, of any format that the backend reads, as the engine's graph.

#pragma once

#include <map>
#include <memory>
#include <openvino/core/model.hpp>
#include <openvino/frontend/manager.hpp>
#include <string>

#include "backends/backend.h"
#include "backends/openvino/model_file.h"
#include "base/status.h"

namespace penstock::openvino {

// Reads and converts with the one frontend of `format`. Files are read into memory, not mapped: one
// that is cut short while it is served must not end the server.
//
// UNIMPLEMENTED, naming it, for an operator without a conversion; INVALID_ARGUMENT for a file that
// is not of the format, or is damaged; FAILED_PRECONDITION where this build of the engine lacks the
// frontend. Blocking: reads files.
Result<std::shared_ptr<ov::Model>> ReadModel(ov::frontend::FrontEndManager& frontends,
                                             const Format& format, const LoadOptions& options);

// Gives inputs other shapes and infers the rest anew. `names` are the inputs', in the graph's order.
// INVALID_ARGUMENT where there is no such input, or the graph does not fit the shapes.
Status ReshapeInputs(const std::map<std::string, Shape>& shapes, const ModelSignature& names,
                     const LoadOptions& options, ov::Model* model);

}  // namespace penstock::openvino
