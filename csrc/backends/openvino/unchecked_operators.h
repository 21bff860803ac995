// Operators of the engine that take their word for it: indices, axes, lengths and strides that come
// with a request and are not checked before memory is read, or written, by them.

#pragma once

#include <openvino/core/model.hpp>

#include "backends/backend.h"
#include "base/status.h"

namespace penstock::openvino {

// UNIMPLEMENTED, by name, where such an operator takes such an input from anything but constants: a
// client that chose the values would read beyond the tensor, in answers too, or end the process.
Status RefuseUncheckedOperators(const ov::Model& model, const LoadOptions& options);

}  // namespace penstock::openvino
