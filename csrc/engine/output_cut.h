// OutputCut: one output that a backend gave, checked against the specification and divided among
// the requests whose rows it holds.

#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "backends/backend.h"
#include "base/status.h"
#include "engine/infer_request.h"
#include "engine/version_spec.h"

namespace penstock {

struct OutputCut {
  const BatchOutput* output = nullptr;
  bool has_no_data = false;      // all of it went to clients' memory on GPUs; set before CutOutput
  Shape dims;                    // as clients see them, batch dimension left out
  size_t row_bytes = 0;          // fixed-size types
  std::vector<size_t> row_ends;  // BYTES: where each row's bytes end
};

// What requests are sent of outputs: views on the backend's memory or on memory of their own.
struct CutOutputs {
  std::vector<TensorView>& views;  // in the order of InferRequest::wanted
  std::vector<Buffer>& owned;
};

// `to` with its open dimensions (-1) taken, in order, from where `from` is open in `actual`.
Shape Reshaped(const Shape& from, std::span<const int64_t> actual, const Shape& to);

// Checks `output`, of `rows` rows where the model has a batch dimension, against `spec`, and
// measures its rows. INTERNAL naming the output where it does not fit. `cut` borrows the output.
Status CutOutput(const VersionSpec& version, const OutputSpec& spec, const BatchOutput& output,
                 uint32_t rows, OutputCut* cut);

// Appends what `request`, whose rows begin at `first_row`, gets of the output that is its
// wanted[index]: a view, its classes, or nothing but a name and a shape where the values go to its
// shared memory. Not OK: that memory does not take them.
Status AppendOutput(const VersionSpec& version, const OutputCut& cut, uint32_t first_row,
                    const InferRequest& request, size_t index, const CutOutputs& to);

}  // namespace penstock
