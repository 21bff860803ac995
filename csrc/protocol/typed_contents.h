// TypedContents: the `contents` of one input (InferTensorContents), brought into memory layout.
//
// Which field holds what (field numbers in parentheses):
//   bool_contents(1)  BOOL                 uint_contents(4)    UINT8 UINT16 UINT32
//   int_contents(2)   INT8 INT16 INT32     uint64_contents(5)  UINT64
//   int64_contents(3) INT64                fp32_contents(6)    FP32
//   bytes_contents(8) BYTES                fp64_contents(7)    FP64
// FP16 and BF16 have none: they are sent raw.
// Numbers come packed (one run of bytes), one by one, or as a mixture of both; the elements are
// their concatenation in wire order. `contents` itself may come several times and is then
// concatenated too.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/status.h"
#include "tensor/dtype.h"

namespace penstock {

// The protocol's name of the field that holds elements of `dtype`; "" for FP16 and BF16.
std::string_view TypedContentsField(DataType dtype);

// Two passes, so that memory is taken only after the number of elements is known to be right:
// Measure counts, Write lays out.
// Threading: thread-compatible.
// Ownership: borrows the message.
class TypedContents {
 public:
  // Counts the elements in `input`, an InferInputTensor message of type `dtype`.
  // Status: INVALID_ARGUMENT, without the names of model and tensor: the caller has them.
  static Result<TypedContents> Measure(std::span<const uint8_t> input, DataType dtype);

  size_t num_elements() const { return num_elements_; }
  // Bytes in memory layout.
  size_t size_bytes() const { return size_bytes_; }
  // The elements where the message already has them in memory layout: packed FP32 and FP64 in one
  // run.
  std::optional<std::span<const uint8_t>> in_place() const { return in_place_; }

  // Lays the elements out. REQUIRES: out.size() == size_bytes().
  // Status: INVALID_ARGUMENT for a number that is malformed or does not fit the type.
  Status Write(std::span<uint8_t> out) const;

 private:
  TypedContents(std::span<const uint8_t> input, DataType dtype) : input_(input), dtype_(dtype) {}

  std::span<const uint8_t> input_;
  DataType dtype_;
  size_t num_elements_ = 0;
  size_t size_bytes_ = 0;
  std::optional<std::span<const uint8_t>> in_place_;
};

}  // namespace penstock
