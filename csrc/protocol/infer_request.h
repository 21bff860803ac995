// ModelInferRequest (Open Inference, package `inference`) read into views: no tensor is copied
// where the wire already has it in memory layout.
//
// Grammar (proto/inference/grpc_service.proto; field numbers in parentheses):
//   request    = model_name(1) model_version(2) id(3) parameter(4)* input(5)* output(6)* raw(7)*
//   input      = name(1) datatype(2) shape(3)* parameter(4)* contents(5)?
//   output     = name(1) parameter(2)*
//   parameter  = map entry: key(1) value(2)
//   value      = bool(1) | int64(2) | string(3) | double(4) | uint64(5)
//   contents   = see typed_contents.h
// Fields may come in any order; a scalar field that comes twice keeps its last value, as protobuf
// says. Unknown fields are skipped. A known field of the wrong wire type is an error, not an
// unknown field.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "memory/host_pool.h"
#include "tensor/parameter.h"
#include "tensor/tensor_view.h"

namespace penstock {

// A view is many times larger than the smallest tensor or parameter on the wire. These bounds keep
// a message of tiny ones from becoming a large allocation.
inline constexpr size_t kMaxRequestTensors = 4096;     // inputs, and again outputs
inline constexpr size_t kMaxRequestParameters = 4096;  // of the request and all its tensors

// A run of InferRequestView::parameters.
struct ParameterRange {
  uint32_t first = 0;
  uint32_t count = 0;
};

struct InferInputView {
  // data: the raw contents, or the decoded typed contents; empty where the client sent neither, and
  // where the parameter shared_memory_region says that they lie elsewhere.
  TensorView tensor;
  ParameterRange parameters;
};

struct InferOutputView {
  std::string_view name;
  ParameterRange parameters;
};

// One parsed request.
// Threading: thread-compatible.
// Ownership: borrows the message given to ParseInferRequest, which outlives it; owns `decoded`.
// Lifecycle: reusable, ParseInferRequest clears it and keeps its capacity.
struct InferRequestView {
  std::string_view model_name;
  std::string_view model_version;  // "" = by the model's version policy
  std::string_view id;
  ParameterRange request_parameters;
  std::vector<InferInputView> inputs;
  std::vector<InferOutputView> outputs;
  std::vector<Parameter> parameters;  // all of them; the ranges index it
  std::vector<Buffer> decoded;        // typed contents that had to be laid out in memory

  // Forgets everything and keeps the vectors' capacity.
  void Clear() {
    model_name = model_version = id = {};
    request_parameters = {};
    inputs.clear();
    outputs.clear();
    parameters.clear();
    decoded.clear();
  }

  std::span<const Parameter> ParametersOf(ParameterRange range) const {
    return std::span(parameters).subspan(range.first, range.count);
  }
};

// Parses `message`, which is hostile until proven otherwise. Checks the structure only: well-formed
// protobuf, valid UTF-8 in strings, known datatypes, rank <= kMaxRank, dimensions that are not
// negative and whose product fits, contents of the datatype's own field and as many elements as the
// shape says, raw and typed contents not mixed, as many raw entries as inputs that are not in
// shared memory, and no contents of an input that is. Whether it fits the model is the engine's business, the byte counts of raw
// contents included.
//
// Typed contents become memory layout in a buffer of `pool` (fixed-width packed ones stay views).
// Memory is taken only after the number of elements was found right: 8 times the message at most.
//
// Status: INVALID_ARGUMENT naming the model and the tensor; `*request` is then unspecified.
// Throws std::bad_alloc when the system has no memory.
Status ParseInferRequest(std::span<const uint8_t> message, HostPool& pool,
                         InferRequestView* request);

// The id of a request that is refused unread, if it is among the first three fields, where
// protobuf's own writers put it; else "".
std::string_view PeekRequestId(std::span<const uint8_t> message);

}  // namespace penstock
