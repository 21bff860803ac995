// PaddedRows: runs batches of a tiny model at sizes that seldom change, with rows behind them.
//
// The engine prepares anew when a batch has another size than the last, which costs more than some
// rows that nobody reads: 13 to 24 us, where a 64-64-10 perceptron takes 4 more for 64 than for one.

#pragma once

#include <cstddef>
#include <openvino/runtime/infer_request.hpp>
#include <openvino/runtime/tensor.hpp>
#include <span>
#include <vector>

#include "backends/backend.h"

namespace penstock::openvino {

// Threading: thread-compatible; confined to its instance.
// Ownership: owns the memory that inputs are copied into, of at most twice the rows of a batch.
class PaddedRows {
 public:
  // What rows behind a batch may cost, in bytes that they make the engine read. REQUIRES:
  // `row_cost_bytes`, of each of them, is not 0.
  static constexpr size_t kSpareBytes = 1 << 20;
  explicit PaddedRows(size_t row_cost_bytes) : most_spare_(kSpareBytes / row_cost_bytes) {}

  // Has the engine read a batch's inputs, of `rows` rows each, and what lies behind them: zeros, or
  // rows of earlier batches. `types` are the engine's, by input.
  void SetInputs(std::span<const BatchInput> inputs, std::span<const ov::element::Type> types,
                 size_t rows, ov::InferRequest* request);
  // The engine was given other inputs.
  void Forget() { held_ = 0; }

 private:
  // The rows to run `rows` at: as many as the last batch ran at, where that costs little.
  size_t Choose(size_t rows);

  const size_t most_spare_;
  size_t chosen_ = 0;
  std::vector<ov::Tensor> tensors_;  // by input
  size_t held_ = 0;                  // rows of those; 0: the engine does not read them
};

}  // namespace penstock::openvino
