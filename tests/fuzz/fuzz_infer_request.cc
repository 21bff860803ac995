// Any bytes as a ModelInferRequest. The sanitizers judge the parser; beyond that, what it accepts
// must be wholly readable, and answering with the same tensors must fill exactly the size that was
// told.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "memory/host_pool.h"
#include "protocol/infer_request.h"
#include "protocol/infer_response.h"

namespace penstock {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

volatile unsigned char sink;

// Reads every byte, so that a view that reaches outside its memory is found.
template <typename Bytes>
void ReadAll(const Bytes& bytes) {
  for (auto byte : bytes) sink = static_cast<unsigned char>(byte);
}

void ReadParameters(std::span<const Parameter> parameters) {
  for (const Parameter& parameter : parameters) {
    ReadAll(parameter.key);
    if (auto* text = std::get_if<std::string_view>(&parameter.value)) ReadAll(*text);
  }
}

void EncodeEcho(const InferRequestView& request) {
  std::vector<TensorView> outputs;
  for (const InferInputView& input : request.inputs) outputs.push_back(input.tensor);
  const InferResponseView response{.model_name = request.model_name,
                                   .model_version = request.model_version,
                                   .id = request.id,
                                   .outputs = outputs,
                                   .final_response = true};
  // Exactly as large as told: one byte more is the sanitizer's to find.
  const size_t size_bytes = StreamInferResponseSize(response);
  auto encoded = std::make_unique<uint8_t[]>(size_bytes);
  EncodeStreamInferResponse(response, std::span(encoded.get(), size_bytes));
}

void ReadAll(const InferRequestView& request) {
  ReadAll(request.model_name);
  ReadAll(request.model_version);
  ReadAll(request.id);
  ReadParameters(request.ParametersOf(request.request_parameters));
  for (const InferInputView& input : request.inputs) {
    ReadAll(input.tensor.name);
    ReadAll(input.tensor.data);
    ReadParameters(request.ParametersOf(input.parameters));
  }
  for (const InferOutputView& output : request.outputs) {
    ReadAll(output.name);
    ReadParameters(request.ParametersOf(output.parameters));
  }
}

}  // namespace
}  // namespace penstock

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;  // NOLINT: the entry's name is fixed, and so is its scope
  HostPool pool(0);  // keeps nothing idle: a decoded tensor used too late is a use after free
  InferRequestView request;
  const Status first = ParseInferRequest(std::span(data, size), pool, &request);
  if (first.ok()) {
    ReadAll(request);
    EncodeEcho(request);
  } else {
    Require(first.code() == StatusCode::kInvalidArgument);
    Require(!first.message().empty());
  }
  // A view is used again and again: what the last message left must not matter.
  Require(ParseInferRequest(std::span(data, size), pool, &request).code() == first.code());
  return 0;
}
