#include "backends/onnxruntime/string_tensor.h"

#include <cstring>

#include "base/strcat.h"
#include "memory/host_pool.h"
#include "tensor/bytes_elements.h"

namespace penstock::ort {
Result<Owned<Value>> MakeStringTensor(const OrtLibrary& library, const TensorView& tensor) {
  const Api& api = library.api();
  PENSTOCK_ASSIGN_OR_RETURN(const int64_t count, CountBytesElements(tensor));
  Value* raw = nullptr;
  PENSTOCK_RETURN_IF_ERROR(
      library.ToStatus(api.CreateTensorAsOrtValue(library.allocator(), tensor.shape.begin(),
                                                  tensor.shape.rank(), ElementType::kString, &raw),
                       "BYTES input"));
  Owned<Value> value(raw, api.ReleaseValue);
  std::span<const uint8_t> rest = tensor.data;
  for (int64_t i = 0; i < count; ++i) {
    std::span<const uint8_t> element;
    if (!TakeBytesElement(&rest, &element)) return MalformedBytes(tensor);
    char* target = nullptr;
    PENSTOCK_RETURN_IF_ERROR(
        library.ToStatus(api.GetResizedStringTensorElementBuffer(raw, static_cast<size_t>(i),
                                                                 element.size(), &target),
                         "BYTES input"));
    if (!element.empty()) std::memcpy(target, element.data(), element.size());
  }
  if (!rest.empty()) return MalformedBytes(tensor);
  return value;
}

Result<Buffer> EncodeStringTensor(const OrtLibrary& library, const Value* value, size_t count,
                                  std::vector<size_t>* offsets) {
  const Api& api = library.api();
  if (count == 0) return Buffer();
  size_t text_bytes = 0;
  PENSTOCK_RETURN_IF_ERROR(
      library.ToStatus(api.GetStringTensorDataLength(value, &text_bytes), "BYTES output"));
  // The engine writes all texts end to end. They go to the end of the buffer and move forward, one
  // after the other, to where they belong: each target ends at or before the next text's start.
  const size_t gap = count * kBytesLengthBytes;
  Buffer buffer = HostPool::Shared().Allocate(gap + text_bytes);
  uint8_t* const texts = buffer.data() + gap;
  offsets->resize(count + 1);
  PENSTOCK_RETURN_IF_ERROR(
      library.ToStatus(api.GetStringTensorContent(value, texts, text_bytes, offsets->data(), count),
                       "BYTES output"));
  (*offsets)[count] = text_bytes;
  uint8_t* target = buffer.data();
  for (size_t i = 0; i < count; ++i) {
    const size_t size = (*offsets)[i + 1] - (*offsets)[i];
    if (size > UINT32_MAX) return Internal("BYTES output: an element of 4 GiB or more");
    const auto length = static_cast<uint32_t>(size);
    std::memmove(target + kBytesLengthBytes, texts + (*offsets)[i], size);
    std::memcpy(target, &length, kBytesLengthBytes);
    target += kBytesLengthBytes + size;
  }
  return buffer;
}

}  // namespace penstock::ort
