// Elements of BYTES as they lie on the wire and in memory: each is its length in 4 bytes, lowest
// first, and that many bytes.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "base/status.h"
#include "base/strcat.h"
#include "tensor/tensor_view.h"

namespace penstock {

inline constexpr size_t kBytesLengthBytes = sizeof(uint32_t);
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "lengths are copied as they lie in memory");

// INVALID_ARGUMENT, for a tensor whose bytes are not the elements of its shape.
inline Status MalformedBytes(const TensorView& tensor) {
  return InvalidArgument(StrCat("input '", tensor.name,
                                "': BYTES data does not hold the elements of shape ",
                                tensor.shape.ToString()));
}

// How many elements to take; MalformedBytes where the data cannot hold them. To be asked before
// anything is made for them: an element takes at least its length's bytes.
inline Result<int64_t> CountBytesElements(const TensorView& tensor) {
  const std::optional<int64_t> count = tensor.shape.NumElements();
  if (!count || static_cast<uint64_t>(*count) > tensor.data.size() / kBytesLengthBytes) {
    return MalformedBytes(tensor);
  }
  return *count;
}

// Takes the next element off the front of `rest`; false where it is cut short.
inline bool TakeBytesElement(std::span<const uint8_t>* rest, std::span<const uint8_t>* element) {
  if (rest->size() < kBytesLengthBytes) return false;
  uint32_t length = 0;
  std::memcpy(&length, rest->data(), kBytesLengthBytes);
  if (rest->size() - kBytesLengthBytes < length) return false;
  *element = rest->subspan(kBytesLengthBytes, length);
  *rest = rest->subspan(kBytesLengthBytes + length);
  return true;
}

}  // namespace penstock
