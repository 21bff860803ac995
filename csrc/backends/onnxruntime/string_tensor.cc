#include "backends/onnxruntime/string_tensor.h"

#include <cstring>

#include "base/strcat.h"
#include "memory/host_pool.h"

namespace penstock::ort {
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
bool TakeElement(std::span<const uint8_t>* rest, std::span<const uint8_t>* element) {
  if (rest->size() < kLengthBytes) return false;
  uint32_t length = 0;
  std::memcpy(&length, rest->data(), kLengthBytes);
  if (rest->size() - kLengthBytes < length) return false;
  *element = rest->subspan(kLengthBytes, length);
  *rest = rest->subspan(kLengthBytes + length);
  return true;
}

}  // namespace

Result<Owned<Value>> MakeStringTensor(const OrtLibrary& library, const TensorView& tensor) {
  const Api& api = library.api();
  const auto count = tensor.shape.NumElements();
  // Checked before anything is made: an element takes at least its length's bytes.
  if (!count || static_cast<uint64_t>(*count) > tensor.data.size() / kLengthBytes) {
    return Malformed(tensor);
  }
  Value* raw = nullptr;
  PENSTOCK_RETURN_IF_ERROR(
      library.ToStatus(api.CreateTensorAsOrtValue(library.allocator(), tensor.shape.begin(),
                                                  tensor.shape.rank(), ElementType::kString, &raw),
                       "BYTES input"));
  Owned<Value> value(raw, api.ReleaseValue);
  std::span<const uint8_t> rest = tensor.data;
  for (int64_t i = 0; i < *count; ++i) {
    std::span<const uint8_t> element;
    if (!TakeElement(&rest, &element)) return Malformed(tensor);
    char* target = nullptr;
    PENSTOCK_RETURN_IF_ERROR(
        library.ToStatus(api.GetResizedStringTensorElementBuffer(raw, static_cast<size_t>(i),
                                                                 element.size(), &target),
                         "BYTES input"));
    if (!element.empty()) std::memcpy(target, element.data(), element.size());
  }
  if (!rest.empty()) return Malformed(tensor);
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
  const size_t gap = count * kLengthBytes;
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
    std::memmove(target + kLengthBytes, texts + (*offsets)[i], size);
    std::memcpy(target, &length, kLengthBytes);
    target += kLengthBytes + size;
  }
  return buffer;
}

}  // namespace penstock::ort
