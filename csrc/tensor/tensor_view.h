// TensorView: a tensor's type, shape and bytes, all borrowed.

#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace penstock {

// Row-major, little-endian, as on the wire; BYTES elements are length-prefixed (dtype.h).
// Ownership: borrows the name and the bytes; whoever makes the view says from whom.
struct TensorView {
  std::string_view name;
  DataType dtype = DataType::kInvalid;
  Shape shape;
  std::span<const uint8_t> data;
};

}  // namespace penstock
