// ModelSignature: what a model takes and gives. Part of the backends' interface (backend.h).

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace penstock {

// One input or output as the model file declares it.
struct TensorSpec {
  std::string name;
  DataType dtype = DataType::kInvalid;
  Shape dims;                // as in the file, batch dimension included; -1 = any
  bool is_optional = false;  // inputs only: the model runs without it
};

struct ModelSignature {
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  // What a model that is code says of itself, for a configuration that does not say.
  std::optional<uint32_t> max_batch_size = std::nullopt;  // nullopt: it follows from the tensors
  // Rows of a batch at most, whatever the configuration says. nullopt: as many as there is memory for.
  std::optional<uint32_t> most_rows = std::nullopt;
  bool is_decoupled = false;         // it answers a request with none, one or many responses
  bool batches_dynamically = false;  // requests may share a batch
};

}  // namespace penstock
