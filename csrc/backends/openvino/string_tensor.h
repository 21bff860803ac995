// BYTES <-> the engine's string tensors. On the wire an element is a 4-byte little-endian length
// and that many bytes; in the engine it is a std::string.

#pragma once

#include <openvino/runtime/tensor.hpp>

#include "base/status.h"
#include "tensor/buffer.h"
#include "tensor/tensor_view.h"

namespace penstock::openvino {

// A string tensor with the elements of `tensor`, copied. INVALID_ARGUMENT where the bytes do not
// hold exactly as many elements as the shape asks for.
Result<ov::Tensor> MakeStringTensor(const TensorView& tensor);

// The elements of a string tensor in wire layout, in pooled memory.
Result<Buffer> EncodeStringTensor(const ov::Tensor& tensor);

}  // namespace penstock::openvino
