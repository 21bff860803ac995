// BatchIo: gathers the inputs of a batch's requests for the backend and cuts its outputs back into
// responses.
//
// Copies per tensor: one in (message -> batch slab), none out (responses are views on the output
// slab, encoded straight into outgoing memory). A batch of one request hands the message's own
// bytes over where they are aligned to the element size and need no layout of their own. What lies
// in a client's shared memory is copied as often: read into the batch slab, written from the output
// slab.
//
// Where the backend reaches a client's memory on a GPU (BackendInstance::Reaches) nothing of what lies
// there is copied here: it is told as parts. BYTES and BOOL inputs are read all the same, for they
// are checked in our own copy.
//
// A request whose shared memory has shrunk or holds what it must not fails alone: it is left out of
// the batch, and the others go on.

#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backends/backend.h"
#include "base/status.h"
#include "batcher/batcher.h"
#include "engine/infer_request.h"
#include "engine/output_cut.h"
#include "engine/version_spec.h"

namespace penstock {

// Scratch memory of one instance, used again for every batch.
// Threading: confined to its instance's thread.
// Ownership: owns the input slabs of the current batch; borrows spec and instance, which outlive
// it.
class BatchIo {
 public:
  BatchIo(const VersionSpec& spec, BackendInstance& instance) : spec_(spec), instance_(instance) {}

  // Lays out inputs() and wanted() for `batch`, of which rows() are left. The requests stay alive
  // until Clear. `outcomes`, one OK per request, gets the failures of those that are left out.
  void Gather(const Batch& batch, std::span<Status> outcomes);
  // Checks what the backend gave against the specification and gives each request whose outcome is
  // OK its part; one whose shared memory does not take it gets the reason as its outcome.
  // INTERNAL naming the output where it does not fit.
  Status Scatter(const Batch& batch, const std::shared_ptr<const BatchOutputs>& outputs,
                 std::span<Status> outcomes);
  // Drops the input slabs.
  void Clear();

  const std::vector<BatchInput>& inputs() const { return inputs_; }
  const std::vector<size_t>& wanted() const { return wanted_; }  // backend indices
  // Whether the batch is one for ExecuteParts, and what that is given.
  bool has_parts() const { return has_devices_; }
  BatchParts parts() const { return {input_parts_, output_parts_}; }
  uint32_t rows() const { return rows_; }  // 0: every request has failed

 private:
  // An input whose rows are copied together.
  struct Fill {
    size_t spec_index = 0;   // in spec_.inputs
    size_t input_index = 0;  // in inputs_
    size_t slab_index = 0;   // in slabs_
    size_t used_bytes = 0;   // by requests so far
    bool has_parts = false;  // some of its rows lie on a GPU
  };

  void FindDevices(InferRequest* request);
  bool IsOnDevice(const SharedTensor& shared);
  void PlanInput(const Batch& batch, size_t index);
  Status GatherRequest(const InferRequest& request);
  void LeaveOut(const InferRequest& request, size_t fills, size_t parts);
  void AddPart(const InferRequest& request, const Fill& fill, std::span<const uint8_t> host);
  Status GatherShared(const InferRequest& request, size_t index, std::span<uint8_t> out) const;
  void FinishInputs();
  void JoinParts();
  void ChooseOutputs(const Batch& batch, std::span<const Status> outcomes);
  void AddOutputParts(const Batch& batch, std::span<const Status> outcomes);
  Status FillResponse(uint32_t first_row, InferRequest* request) const;

  // Constant after construction.
  const VersionSpec& spec_;
  BackendInstance& instance_;

  // Of the current batch.
  std::vector<BatchInput> inputs_;
  std::vector<Buffer> slabs_;
  std::vector<Fill> fills_;
  uint32_t rows_ = 0;                // of the requests that are not left out
  std::vector<size_t> wanted_;       // backend indices, in the order of spec_.outputs
  std::vector<size_t> wanted_spec_;  // the same outputs, as indices of spec_.outputs
  std::vector<bool> is_wanted_;      // by index of spec_.outputs
  // Of a batch with tensors that the backend takes on a GPU; empty of any other.
  bool has_devices_ = false;
  std::vector<bool> has_input_parts_;  // by index of spec_.inputs
  std::vector<bool> is_read_;          // by index of spec_.outputs: somebody wants it on the host
  std::vector<InputPart> input_parts_;
  std::vector<OutputPart> output_parts_;
  std::vector<OutputCut> cuts_;  // by index of spec_.outputs
};

}  // namespace penstock
