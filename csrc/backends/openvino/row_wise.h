// Whether a model computes each row by itself, so that a batch may be run with rows behind it.

#pragma once

#include <openvino/core/model.hpp>

namespace penstock::openvino {

// True where the first dimension of every input and output is open to any size and the only open
// one, all inputs are floating-point, and no row of an output depends on another row. Only operators
// that are known to keep rows apart are looked through: false says nothing.
bool IsRowWise(const ov::Model& model);

}  // namespace penstock::openvino
