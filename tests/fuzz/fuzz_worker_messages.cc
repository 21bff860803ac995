// Any bytes as what a worker says of its model and of its answers. The sanitizers judge the readers;
// beyond that, what they accept must lie in the slab, and hold the bytes of its shapes.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "worker/messages.h"

namespace penstock {
namespace {

constexpr uint64_t kSlabBytes = 4096;

void Require(bool condition) {
  if (!condition) std::abort();
}

void TryResults(std::span<const uint8_t> body, size_t expected) {
  const auto results = DecodeResults(body, kSlabBytes, expected);
  if (!results.ok()) return;
  Require(results->size() == expected);
  for (const WorkerResult& result : *results) {
    Require(result.text.size() <= kMaxWorkerTextBytes);
    for (const WorkerOutput& output : result.outputs) {
      Require(output.offset <= kSlabBytes && output.size <= kSlabBytes - output.offset);
      const auto count = output.shape.NumElements();
      Require(count.has_value());
      const size_t each = DataTypeSize(output.dtype);
      Require(each == 0 || output.size == static_cast<uint64_t>(*count) * each);
    }
  }
}

void TrySignature(std::span<const uint8_t> body) {
  const auto signature = DecodeSignature(body);
  if (!signature.ok()) return;
  Require(signature->inputs.size() <= kMaxWorkerTensors);
  for (const WorkerTensorSpec& spec : signature->inputs) {
    Require(spec.dtype != DataType::kInvalid);
    for (const int64_t dim : spec.dims) Require(dim >= -1);
  }
}

}  // namespace
}  // namespace penstock

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const uint8_t> body(data, size);
  penstock::TrySignature(body);
  for (const size_t expected : {1, 2}) penstock::TryResults(body, expected);
  return 0;
}
