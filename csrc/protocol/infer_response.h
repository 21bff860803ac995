// ModelInferResponse and ModelStreamInferResponse written straight into the caller's memory: a size
// pass, then a write pass; no allocation, no intermediate message.
//
// Grammar:
//   response        = model_name(1) model_version(2) id(3)? parameter(4)* output(5)* raw(6)*
//   output          = name(1) datatype(2) shape(3, packed) parameter(4)*
//   stream response = error_message(1)? infer_response(2)
// There is always one raw entry per output, in output order, an empty one for a zero-size tensor:
// public clients index them unconditionally.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "tensor/tensor_view.h"

namespace penstock {

// An output's bytes may lie in several places only if they are contiguous: one span each.
// Ownership: borrows everything.
struct InferResponseView {
  std::string_view model_name;
  std::string_view model_version;
  std::string_view id;  // not written when empty
  std::span<const TensorView> outputs;
  // The parameter "triton_final_response"; absent on unary responses.
  std::optional<bool> final_response;
  // The parameter "penstock_digest"; not written when empty.
  std::string_view digest = {};
};

// Bytes that EncodeInferResponse will write. Protobuf messages end at 2^31 - 1 bytes: it is for the
// caller to fail a request whose response is larger.
size_t InferResponseSize(const InferResponseView& response);

// Writes exactly InferResponseSize(response) bytes. REQUIRES: out.size() is that size.
void EncodeInferResponse(const InferResponseView& response, std::span<uint8_t> out);

// The same, wrapped as ModelStreamInferResponse.infer_response.
size_t StreamInferResponseSize(const InferResponseView& response);
void EncodeStreamInferResponse(const InferResponseView& response, std::span<uint8_t> out);

// Everything of the same messages but the tensors' bytes, for who sends those from where they lie:
// the bytes of the i-th output belong before byte (*cuts)[i] of `out`.
// `is_stream` as in EncodeStreamInferResponse.
size_t InferResponseFramingSize(const InferResponseView& response, bool is_stream);
void EncodeInferResponseFraming(const InferResponseView& response, bool is_stream,
                                std::span<uint8_t> out, std::vector<size_t>* cuts);

// A failed request on a stream: error_message, and an infer_response with the id (and the model's
// name and version where the request named one that exists), no outputs, `final_response` as given.
size_t StreamInferErrorSize(std::string_view error_message, const InferResponseView& response);
void EncodeStreamInferError(std::string_view error_message, const InferResponseView& response,
                            std::span<uint8_t> out);

}  // namespace penstock
