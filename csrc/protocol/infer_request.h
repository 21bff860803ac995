// ModelInferRequest (Open Inference, package `inference`) read into views: no tensor is copied where the
// wire already has it in memory layout.
//
// Grammar (proto/inference/grpc_service.proto; field numbers in parentheses):
//   request    = model_name(1) model_version(2) id(3) parameter(4)* input(5)* output(6)* raw(7)*
//   input      = name(1) datatype(2) shape(3)* parameter(4)* contents(5)?
//   output     = name(1) parameter(2)*
//   parameter  = map entry: key(1), value(2) = bool(1) | int64(2) | string(3) | double(4) | uint64(5)
//   contents   = bool(1)* int(2)* int64(3)* uint(4)* uint64(5)* fp32(6)* fp64(7)* bytes(8)*
// Fields may come in any order; a scalar field that comes twice keeps its last value, as protobuf says.

#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "base/status.h"
#include "memory/host_pool.h"
#include "tensor/tensor_view.h"

namespace penstock {

using ParameterValue = std::variant<bool, int64_t, uint64_t, double, std::string_view>;

struct Parameter {
  std::string_view key;
  ParameterValue value;
};

// A run of InferRequestView::parameters.
struct ParameterRange {
  uint32_t first = 0;
  uint32_t count = 0;
};

struct InferInputView {
  TensorView tensor;  // data: the raw contents, or the decoded typed contents
  ParameterRange parameters;
};

struct InferOutputView {
  std::string_view name;
  ParameterRange parameters;
};

// One parsed request.
// Ownership: views borrow from the message given to ParseInferRequest, or from `decoded`, which the view
// owns: the message outlives the view.
// Threading: thread-compatible. Reusable: ParseInferRequest clears it and keeps its capacity.
struct InferRequestView {
  std::string_view model_name;
  std::string_view model_version;  // "" = by the model's version policy
  std::string_view id;
  ParameterRange request_parameters;
  std::vector<InferInputView> inputs;
  std::vector<InferOutputView> outputs;
  std::vector<Parameter> parameters;  // all of them; the ranges index it
  std::vector<Buffer> decoded;        // typed contents that had to be laid out in memory

  std::span<const Parameter> ParametersOf(ParameterRange range) const {
    return std::span(parameters).subspan(range.first, range.count);
  }
};

// Parses `message`, which is hostile until proven otherwise. Checks the structure only: well-formed
// protobuf, valid UTF-8 in strings, known datatypes, rank <= kMaxRank, dimensions that are not negative
// and whose product fits, contents of the datatype's own field, raw and typed contents not mixed,
// as many raw entries as inputs. Whether it fits the model is the engine's business, byte counts included.
//
// Typed contents become memory layout in a buffer of `pool` (fixed-width packed ones stay views).
// Status: INVALID_ARGUMENT naming the model and the tensor; `*request` is then unspecified.
Status ParseInferRequest(std::span<const uint8_t> message, HostPool& pool, InferRequestView* request);

}  // namespace penstock
