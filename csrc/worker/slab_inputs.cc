#include "worker/slab_inputs.h"

#include <new>

namespace penstock {

Buffer SlabInputs::Allocate(size_t size_bytes) {
  if (size_bytes == 0) return {};
  Begin();
  auto data = arena_.Allocate(size_bytes);
  if (!data.ok()) throw std::bad_alloc();
  ++held_;
  return {data->data(), size_bytes, size_bytes, &Release, this};
}

void SlabInputs::Release(void* context, void*, size_t) noexcept {
  --static_cast<SlabInputs*>(context)->held_;
}

}  // namespace penstock
