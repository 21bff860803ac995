// Reading a model's inputs and outputs: names, types, shapes.

#pragma once

#include <openvino/core/model.hpp>
#include <openvino/core/type/element_type.hpp>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "base/status.h"

namespace penstock::openvino {

// The protocol's type for the engine's; kInvalid for one the protocol does not have.
DataType FromElementType(const ov::element::Type& type);

struct GraphSignature {
  ModelSignature signature;
  std::vector<ov::element::Type> input_types;  // the engine's, in the signature's order
};

// A tensor of the graph may have several names, or none. An input goes by its parameter's name
// where that is one of them, else by the shortest of them; an output by the shortest that is no
// input's; one without any by its node's.
//
// `label` starts the messages. UNIMPLEMENTED for an input or output of a type or rank that the
// protocol or Penstock does not have.
Result<GraphSignature> ReadSignature(const ov::Model& model, const std::string& label);

}  // namespace penstock::openvino
