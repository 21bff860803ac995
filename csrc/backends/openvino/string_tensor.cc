#include "backends/openvino/string_tensor.h"

#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "base/strcat.h"
#include "memory/host_pool.h"

namespace penstock::openvino {
namespace {

constexpr size_t kLengthBytes = sizeof(uint32_t);
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "lengths are copied as they lie in memory");

Status Malformed(const TensorView& tensor) {
  return InvalidArgument(StrCat("input '", tensor.name,
                                "': BYTES data does not hold the elements of shape ",
                                tensor.shape.ToString()));
}

// Takes the next element off the front of `rest`; false where it is cut short.
bool TakeElement(std::span<const uint8_t>* rest, std::string* element) {
  if (rest->size() < kLengthBytes) return false;
  uint32_t length = 0;
  std::memcpy(&length, rest->data(), kLengthBytes);
  if (rest->size() - kLengthBytes < length) return false;
  element->assign(reinterpret_cast<const char*>(rest->data()) + kLengthBytes, length);
  *rest = rest->subspan(kLengthBytes + length);
  return true;
}

}  // namespace

Result<ov::Tensor> MakeStringTensor(const TensorView& tensor) {
  const auto count = tensor.shape.NumElements();
  // Checked before anything is made: an element takes at least its length's bytes.
  if (!count || static_cast<uint64_t>(*count) > tensor.data.size() / kLengthBytes) {
    return Malformed(tensor);
  }
  ov::Tensor strings(ov::element::string, ov::Shape(tensor.shape.begin(), tensor.shape.end()));
  std::span<const uint8_t> rest = tensor.data;
  auto* elements = strings.data<std::string>();
  for (int64_t i = 0; i < *count; ++i) {
    if (!TakeElement(&rest, &elements[i])) return Malformed(tensor);
  }
  if (!rest.empty()) return Malformed(tensor);
  return strings;
}

Result<Buffer> EncodeStringTensor(const ov::Tensor& tensor) {
  const std::span<const std::string> elements(tensor.data<const std::string>(), tensor.get_size());
  size_t size_bytes = 0;
  for (const std::string& element : elements) {
    if (element.size() > UINT32_MAX) return Internal("BYTES output: an element of 4 GiB or more");
    size_bytes += kLengthBytes + element.size();
  }
  Buffer buffer = HostPool::Shared().Allocate(size_bytes);
  uint8_t* target = buffer.data();
  for (const std::string& element : elements) {
    const auto length = static_cast<uint32_t>(element.size());
    std::memcpy(target, &length, kLengthBytes);
    std::memcpy(target + kLengthBytes, element.data(), element.size());
    target += kLengthBytes + element.size();
  }
  return buffer;
}

}  // namespace penstock::openvino
