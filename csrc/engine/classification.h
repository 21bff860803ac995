// The classification extension of the Open Inference protocol: the top classes of an output instead
// of its values, each as the string "value:index" or "value:index:label".

#pragma once

#include <string>
#include <vector>

#include "tensor/buffer.h"
#include "tensor/tensor_view.h"

namespace penstock {

// The `classes` largest values of each row (of the whole tensor when !has_batch_dimension), largest
// first, ties by index, not-a-number last; fewer where a row has fewer. Values print as Triton
// prints them: six decimals for floating point, whole numbers else.
//
// Returns a BYTES tensor of shape [rows, k] ([k] without a batch dimension) whose bytes are in
// `*out`. REQUIRES: values.dtype is not BYTES.
TensorView Classify(const TensorView& values, bool has_batch_dimension, uint32_t classes,
                    const std::vector<std::string>& labels, Buffer* out);

}  // namespace penstock
