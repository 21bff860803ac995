// VersionSpec: how one version of a model is served, already checked and completed by the control
// plane.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "base/status.h"
#include "batcher/batcher.h"
#include "tensor/tensor_view.h"

namespace penstock {

// An input as clients see it. Dims leave out the batch dimension when max_batch_size > 0; -1 = any.
struct InputSpec {
  std::string name;
  DataType dtype = DataType::kInvalid;
  Shape dims;
  std::optional<Shape> reshape;  // what the model file wants instead of dims
  bool is_optional = false;
  size_t backend_index = 0;  // in the file's signature; set by BindToSignature
};

struct OutputSpec {
  std::string name;
  DataType dtype = DataType::kInvalid;
  Shape dims;
  std::optional<Shape> reshape;     // what the model file gives instead of dims
  std::vector<std::string> labels;  // for the classification extension; may be empty
  size_t backend_index = 0;
};

struct VersionSpec {
  std::string model_name;
  int64_t version = 0;
  std::vector<InputSpec> inputs;
  std::vector<OutputSpec> outputs;
  uint32_t max_batch_size = 0;  // 0 = tensors have no batch dimension
  std::vector<uint32_t> preferred_batch_sizes;
  int64_t max_queue_delay_us = 0;
  bool preserves_ordering = false;
  bool combines_requests = true;  // dynamic_batching is on
  uint32_t default_priority = 1;
  std::vector<QueuePolicy> queue_policies = {QueuePolicy{}};
  uint32_t instance_count = 1;
  bool is_decoupled = false;         // none, one or many responses to a request
  uint32_t max_background_rows = 0;  // of a batch of background requests; 0 = max_batch_size

  bool has_batch_dimension() const { return max_batch_size > 0; }
  // True when every request of a version has the same shapes: its batch key is then empty.
  bool has_fixed_shapes() const;
  // Nor can the bytes of a row vary: no input is BYTES either.
  bool has_fixed_sizes() const;
  // "model 'digits' version 3", for messages.
  std::string DisplayName() const;
};

// Finds each input and output of `spec` in the file's signature and sets backend_index; a file that
// says it is decoupled makes `spec` so.
// FAILED_PRECONDITION naming the tensor where one is missing, has another type, or a required input
// of the file is not in the spec; INVALID_ARGUMENT where a number is out of range.
Status BindToSignature(const ModelSignature& signature, VersionSpec* spec);

}  // namespace penstock
