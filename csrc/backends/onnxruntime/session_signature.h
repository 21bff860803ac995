// SessionSignature: what a session's inputs and outputs are, and how outputs' shapes follow from
// inputs'.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backends/backend.h"

namespace penstock::ort {

// Where a dimension of an output comes from, known before the model runs.
struct OutputDim {
  enum class Source { kFixed, kInput, kUnknown };
  Source source = Source::kUnknown;
  int64_t size = 0;  // kFixed
  size_t input = 0;  // kInput: this input's
  size_t axis = 0;   //         dimension
};

// What must be known of an output to give it memory before the model runs.
struct OutputPlan {
  std::vector<OutputDim> dims;
  // The shape follows from the inputs' shapes, so the output can be written into memory of ours.
  bool is_predictable = false;
};

struct SessionSignature {
  ModelSignature signature;
  std::vector<OutputPlan> output_plans;  // in the signature's order
  // Of a session on a GPU, by input: the engine reads it in the host's memory. Empty: none.
  std::vector<bool> on_host = {};

  bool IsOnHost(size_t input) const { return input < on_host.size() && on_host[input]; }
};

}  // namespace penstock::ort
