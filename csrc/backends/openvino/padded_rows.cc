#include "backends/openvino/padded_rows.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace penstock::openvino {

size_t PaddedRows::Choose(size_t rows) {
  if (rows > chosen_ || chosen_ - rows > most_spare_) {
    chosen_ = std::min(std::bit_ceil(rows), rows + most_spare_);
  }
  return chosen_;
}

void PaddedRows::SetInputs(std::span<const BatchInput> inputs,
                           std::span<const ov::element::Type> types, size_t rows,
                           ov::InferRequest* request) {
  const size_t padded = Choose(rows);
  if (padded != held_) {
    Forget();  // should the next lines throw
    tensors_.resize(types.size());
    for (const BatchInput& input : inputs) {
      ov::Shape shape(input.tensor.shape.begin(), input.tensor.shape.end());
      shape[0] = padded;
      ov::Tensor& tensor = tensors_[input.index];
      tensor = ov::Tensor(types[input.index], shape);
      std::memset(tensor.data(), 0, tensor.get_byte_size());
      request->set_input_tensor(input.index, tensor);
    }
    held_ = padded;
  }
  for (const BatchInput& input : inputs) {
    std::memcpy(tensors_[input.index].data(), input.tensor.data.data(), input.tensor.data.size());
  }
}

}  // namespace penstock::openvino
