// OpenVinoInstance: runs batches of a model, one at a time.

#pragma once

#include <openvino/runtime/infer_request.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "backends/openvino/openvino_model.h"
#include "backends/openvino/padded_rows.h"
#include "backends/openvino/shape_check.h"
#include "base/status.h"

namespace penstock::openvino {

// Inputs are read where they lie, but for a tiny model's (PaddedRows); outputs are copied out of the engine's memory, once. The engine
// can be given memory for outputs, too, but answers wrongly where an output is an input that passes
// through unchanged, which its optimiser makes of more models than say so (x + 0): it then writes
// what it finds there into the input. BYTES are copied both ways: the engine's are std::string.
//
// Threading: thread-compatible; tied to no thread, and the engine computes on its caller's.
// Ownership: borrows the model. The engine's request refers to a batch's inputs after the batch is
// over, but never reads them: each is set anew before it runs.
class OpenVinoInstance : public BackendInstance {
 public:
  OpenVinoInstance(const OpenVinoModel& model, ov::InferRequest request)
      : model_(model), request_(std::move(request)) {
    if (model.spare_row_bytes() != 0) padded_.emplace(model.spare_row_bytes());
  }

  bool runs_on_any_thread() const override { return true; }
  Status Execute(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                 std::vector<BatchOutput>* outputs) override;

 private:
  Status Run(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
             std::vector<BatchOutput>* outputs);
  void CheckShapes(std::span<const BatchInput> inputs);
  Status SetInput(const BatchInput& input);
  // `padded_rows`: of a padded batch, those that are its own; else 0.
  Result<BatchOutput> CopyOutput(size_t index, size_t padded_rows);

  // Constant after construction.
  const OpenVinoModel& model_;

  ov::InferRequest request_;
  std::optional<PaddedRows> padded_;  // of a model that may be padded
  // What CheckShapes keeps from batch to batch.
  ShapeKey key_;
  std::set<ShapeKey> checked_;
};

}  // namespace penstock::openvino
