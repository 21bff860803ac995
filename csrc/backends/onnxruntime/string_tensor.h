// BYTES <-> the engine's string tensors. On the wire an element is a 4-byte little-endian length
// and that many bytes; in the engine it is a std::string of the engine's own, reached one by one.

#pragma once

#include <cstdint>
#include <vector>

#include "backends/onnxruntime/ort_library.h"
#include "base/status.h"
#include "tensor/buffer.h"
#include "tensor/tensor_view.h"

namespace penstock::ort {

// A string tensor with the elements of `tensor`, copied. INVALID_ARGUMENT where the bytes do not
// hold exactly as many elements as the shape asks for.
Result<Owned<Value>> MakeStringTensor(const OrtLibrary& library, const TensorView& tensor);

// The elements of a string tensor of `count` elements in wire layout, in pooled memory. `offsets`
// is scratch space that the caller keeps for the next call.
Result<Buffer> EncodeStringTensor(const OrtLibrary& library, const Value* value, size_t count,
                                  std::vector<size_t>* offsets);

}  // namespace penstock::ort
