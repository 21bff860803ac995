// Shape: the dimensions of a tensor, held inline so that a request's shapes cost no allocation.

#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>

namespace penstock {

// More dimensions than this are refused (no model of ours or of the public suites comes near).
inline constexpr size_t kMaxRank = 16;

// Up to kMaxRank dimensions; -1 stands for "any" in a model's specification, never in a request.
// Threading: thread-compatible, a plain value.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}
  // REQUIRES: dims.size() <= kMaxRank.
  explicit Shape(std::span<const int64_t> dims) {
    for (const int64_t dim : dims) Append(dim);
  }

  size_t rank() const { return rank_; }
  bool empty() const { return rank_ == 0; }
  int64_t operator[](size_t i) const {
    assert(i < rank_);
    return dims_[i];
  }
  int64_t& operator[](size_t i) {
    assert(i < rank_);
    return dims_[i];
  }
  std::span<const int64_t> dims() const { return {dims_.data(), rank_}; }
  const int64_t* begin() const { return dims_.data(); }
  const int64_t* end() const { return dims_.data() + rank_; }

  // REQUIRES: rank() < kMaxRank.
  void Append(int64_t dim) {
    assert(rank_ < kMaxRank);
    dims_[rank_++] = dim;
  }
  void Clear() { rank_ = 0; }

  // This shape without its first dimension. REQUIRES: !empty().
  Shape WithoutFirst() const { return Shape(dims().subspan(1)); }
  // `first`, then this shape's dimensions. REQUIRES: rank() < kMaxRank.
  Shape WithFirst(int64_t first) const;

  // The product of the dimensions (1 for rank 0); nullopt where one is negative or the product does
  // not fit in int64_t.
  std::optional<int64_t> NumElements() const;

  // "[1,64]", as the public servers print it.
  std::string ToString() const;

  friend bool operator==(const Shape& a, const Shape& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
  }

 private:
  std::array<int64_t, kMaxRank> dims_;  // the first rank_ are set
  size_t rank_ = 0;
};

}  // namespace penstock
