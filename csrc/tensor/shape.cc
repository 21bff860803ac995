#include "tensor/shape.h"

namespace penstock {

Shape Shape::WithFirst(int64_t first) const {
  Shape result;
  result.Append(first);
  for (const int64_t dim : *this) result.Append(dim);
  return result;
}

std::optional<int64_t> Shape::NumElements() const {
  int64_t product = 1;
  bool has_zero = false;
  for (const int64_t dim : *this) {
    if (dim < 0) return std::nullopt;
    has_zero = has_zero || dim == 0;
  }
  if (has_zero) return 0;
  for (const int64_t dim : *this) {
    if (__builtin_mul_overflow(product, dim, &product)) return std::nullopt;
  }
  return product;
}

std::string Shape::ToString() const {
  std::string text = "[";
  for (size_t i = 0; i < rank_; ++i) {
    if (i != 0) text.push_back(',');
    text.append(std::to_string(dims_[i]));
  }
  text.push_back(']');
  return text;
}

}  // namespace penstock
