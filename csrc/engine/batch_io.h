// BatchIo: gathers the inputs of a batch's requests for the backend and cuts its outputs back into
// responses.
//
// Copies per tensor: one in (message -> batch slab), none out (responses are views on the output
// slab, encoded straight into outgoing memory). A batch of one request hands the message's own
// bytes over where they are aligned to the element size and need no layout of their own.

#pragma once

#include <memory>
#include <vector>

#include "backends/backend.h"
#include "base/status.h"
#include "batcher/batcher.h"
#include "engine/infer_request.h"
#include "engine/version_spec.h"

namespace penstock {

// Scratch memory of one instance, used again for every batch.
// Threading: confined to its instance's thread.
// Ownership: owns the input slabs of the current batch; borrows spec and instance, which outlive
// it.
class BatchIo {
 public:
  BatchIo(const VersionSpec& spec, BackendInstance& instance) : spec_(spec), instance_(instance) {}

  // Lays out inputs() and wanted() for `batch`. The requests stay alive until Clear.
  Status Gather(const Batch& batch);
  // Checks what the backend gave against the specification and gives each request its part.
  // INTERNAL naming the output where it does not fit.
  Status Scatter(const Batch& batch, const std::shared_ptr<const BatchOutputs>& outputs);
  // Drops the input slabs.
  void Clear();

  const std::vector<BatchInput>& inputs() const { return inputs_; }
  const std::vector<size_t>& wanted() const { return wanted_; }  // backend indices

 private:
  // How one output of the batch is divided.
  struct Cut {
    const BatchOutput* output = nullptr;
    Shape dims;                    // as clients see them, batch dimension left out
    size_t row_bytes = 0;          // fixed-size types
    std::vector<size_t> row_ends;  // BYTES: where each row's bytes end
  };

  void GatherInput(const Batch& batch, size_t index);
  void ChooseOutputs(const Batch& batch);
  Status PrepareCut(const OutputSpec& spec, const BatchOutput& output, uint32_t rows,
                    Cut* cut) const;
  Status MeasureRows(const OutputSpec& spec, const BatchOutput& output, uint32_t rows,
                     Cut* cut) const;
  TensorView CutRows(const OutputSpec& spec, const Cut& cut, uint32_t first_row,
                     uint32_t rows) const;
  void FillResponse(uint32_t first_row, InferRequest* request) const;

  // Constant after construction.
  const VersionSpec& spec_;
  BackendInstance& instance_;

  // Of the current batch.
  std::vector<BatchInput> inputs_;
  std::vector<Buffer> slabs_;
  std::vector<size_t> wanted_;       // backend indices, in the order of spec_.outputs
  std::vector<size_t> wanted_spec_;  // the same outputs, as indices of spec_.outputs
  std::vector<bool> is_wanted_;      // by index of spec_.outputs
  std::vector<Cut> cuts_;            // by index of spec_.outputs
};

}  // namespace penstock
