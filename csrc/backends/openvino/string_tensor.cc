#include "backends/openvino/string_tensor.h"

#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "base/strcat.h"
#include "memory/host_pool.h"
#include "tensor/bytes_elements.h"

namespace penstock::openvino {
Result<ov::Tensor> MakeStringTensor(const TensorView& tensor) {
  PENSTOCK_ASSIGN_OR_RETURN(const int64_t count, CountBytesElements(tensor));
  ov::Tensor strings(ov::element::string, ov::Shape(tensor.shape.begin(), tensor.shape.end()));
  std::span<const uint8_t> rest = tensor.data;
  auto* elements = strings.data<std::string>();
  for (int64_t i = 0; i < count; ++i) {
    std::span<const uint8_t> element;
    if (!TakeBytesElement(&rest, &element)) return MalformedBytes(tensor);
    elements[i].assign(reinterpret_cast<const char*>(element.data()), element.size());
  }
  if (!rest.empty()) return MalformedBytes(tensor);
  return strings;
}

Result<Buffer> EncodeStringTensor(const ov::Tensor& tensor) {
  const std::span<const std::string> elements(tensor.data<const std::string>(), tensor.get_size());
  size_t size_bytes = 0;
  for (const std::string& element : elements) {
    if (element.size() > UINT32_MAX) return Internal("BYTES output: an element of 4 GiB or more");
    size_bytes += kBytesLengthBytes + element.size();
  }
  Buffer buffer = HostPool::Shared().Allocate(size_bytes);
  uint8_t* target = buffer.data();
  for (const std::string& element : elements) {
    const auto length = static_cast<uint32_t>(element.size());
    std::memcpy(target, &length, kBytesLengthBytes);
    // NOLINTNEXTLINE(bugprone-not-null-terminated-result): its length is in front
    std::memcpy(target + kBytesLengthBytes, element.data(), element.size());
    target += kBytesLengthBytes + element.size();
  }
  return buffer;
}

}  // namespace penstock::openvino
